"""Each way in which the other end can take its time: an attempt is over at its deadline."""

import socket
import threading
import time

import pytest

from signal_dispatch import wire
from signal_dispatch.entries import Endpoint
from tests import hostile
from tests.acceptance.soak import report
from tests.calling import call, failure
from tests.once import ONCE
from tests.receiver import HANG_UP, Raw, Receiver
from tests.waiting import eventually

# The receivers are real servers.
pytestmark = [ONCE, pytest.mark.signal_dispatch_network]

DEADLINE = 1.0
GRACE = 0.5
EVERY = 0.5
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


def endpoint(url, **values):
    return Endpoint("crm", url, timeout=(30, 30), deadline=DEADLINE, **values)


def ends_in_time(what, sessions, target, error_class="timeout", *, body=b"{}"):
    """Make a call that must fail at the deadline, and tell how long it took."""
    began = time.monotonic()
    error = failure(target, sessions, body=body)
    seconds = time.monotonic() - began
    report(f"deadline {DEADLINE:g} s, {what}", seconds=seconds)

    assert error.error_class == error_class, error
    assert DEADLINE - 0.05 <= seconds <= DEADLINE + GRACE
    return error


def test_headers_that_drip(receiver, sessions):
    receiver.script = lambda request: Raw(receiver.drip(HEAD, EVERY))

    ends_in_time("headers drip", sessions, endpoint(receiver.url))


def test_body_that_drips(receiver, sessions):
    receiver.script = lambda request: Raw(_body(receiver))

    ends_in_time("body drips", sessions, endpoint(receiver.url))


def _body(receiver):
    yield HEAD
    yield from receiver.drip(b"x" * 1000, EVERY)


def test_chunks_that_drip(receiver, sessions):
    receiver.script = lambda request: (200, {}, receiver.drip(b"x" * 1000, EVERY))

    ends_in_time("chunks drip", sessions, endpoint(receiver.url))


def test_request_that_is_accepted_and_never_answered(receiver, sessions):
    never = threading.Event()
    receiver.script = lambda request: receiver.hold(never) or HANG_UP

    ends_in_time("never answered", sessions, endpoint(receiver.url))


def test_black_hole(sessions):
    with hostile.black_hole() as port:
        ends_in_time("black hole", sessions, endpoint(f"http://127.0.0.1:{port}/"))


def test_resolver_that_hangs(sessions, monkeypatch):
    answer, real = threading.Event(), socket.getaddrinfo

    def hang(host, *args):
        if host == "crm.example.com":
            if args[-1] != socket.AI_NUMERICHOST:
                answer.wait(30)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        error = ends_in_time(
            "resolver hangs", sessions, endpoint("https://crm.example.com/"), "dns"
        )
    finally:
        answer.set()
    eventually(
        lambda: not [t for t in threading.enumerate() if t.name == "signal_dispatch-resolver"]
    )
    assert str(error) == (
        "The name of crm.example.com could not be resolved: no answer within 1.0 s."
    )


def test_handshake_that_drips(tls, trusted, sessions):
    with Receiver(tls=tls) as secure, hostile.dripping(secure.port, EVERY) as port:
        url = f"https://127.0.0.1:{port}/"
        ends_in_time("handshake drips", sessions, endpoint(url, verify=trusted))


def test_name_that_takes_its_time_and_then_a_handshake_that_drips(
    tls, trusted, sessions, monkeypatch
):
    def slowly(host, port, seconds):
        time.sleep(0.8 * DEADLINE)
        return [(socket.AF_INET, ("127.0.0.1", port))]

    monkeypatch.setattr(wire, "resolve", slowly)
    with Receiver(tls=tls) as secure, hostile.dripping(secure.port, 0.1) as port:
        url = f"https://crm.example.com:{port}/"
        what = "slow look-up, then the handshake drips"
        ends_in_time(what, sessions, endpoint(url, verify=trusted))


def test_handshake_that_is_never_answered(trusted, sessions):
    with hostile.serving(hostile.never) as port:
        url = f"https://127.0.0.1:{port}/"
        ends_in_time("handshake never answered", sessions, endpoint(url, verify=trusted))


def test_answer_over_tls_that_drips(tls, trusted, sessions):
    with Receiver(tls=tls) as secure:
        secure.script = lambda request: Raw(_body(secure))
        ends_in_time("body drips over TLS", sessions, endpoint(secure.url, verify=trusted))


def test_record_of_tls_that_drips(tls, trusted, sessions):
    with Receiver(tls=tls) as secure, hostile.dripping(secure.port, 0.01, 10) as port:
        secure.script = lambda request: (200, {}, b"x" * 16000)
        url = f"https://127.0.0.1:{port}/"
        ends_in_time("TLS record drips", sessions, endpoint(url, verify=trusted))


def test_body_that_nobody_takes(sessions):
    with hostile.serving(hostile.never) as port:
        target = endpoint(f"http://127.0.0.1:{port}/")
        ends_in_time("request not taken", sessions, target, body=b"x" * 50_000_000)


@pytest.mark.parametrize("secure", [False, True])
def test_body_that_is_taken_in_sips(tls, trusted, sessions, secure):
    def sip(near, closing):
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with tls.wrap_socket(near, server_side=True) if secure else near as taken:
            while not closing.wait(0.1) and taken.recv(40_000):
                pass

    with hostile.serving(sip) as port:
        target = endpoint(f"http{'s' * secure}://127.0.0.1:{port}/", verify=trusted)
        what = "request taken in sips" + " over TLS" * secure
        ends_in_time(what, sessions, target, body=b"x" * 50_000_000)


# Through a proxy.


def test_proxy_in_a_black_hole(sessions):
    with hostile.black_hole() as port:
        target = endpoint("http://127.0.0.1:1/", proxies={"http": f"http://127.0.0.1:{port}"})
        ends_in_time("proxy in a black hole", sessions, target, "connect")


def test_proxy_that_drips(tls, trusted, sessions):
    with Receiver(tls=tls) as secure, hostile.proxy(every=EVERY) as port:
        proxies = {"https": f"http://127.0.0.1:{port}"}
        ends_in_time("proxy drips", sessions, endpoint(secure.url, proxies=proxies, verify=trusted))


def test_proxy_that_pauses_and_then_a_handshake_that_drips(tls, trusted, sessions):
    with (
        Receiver(tls=tls) as secure,
        hostile.dripping(secure.port, 0.1) as slow,
        hostile.proxy(pause=0.8 * DEADLINE) as port,
    ):
        target = endpoint(
            f"https://127.0.0.1:{slow}/",
            proxies={"https": f"http://127.0.0.1:{port}"},
            verify=trusted,
        )
        ends_in_time("proxy pauses, then the handshake drips", sessions, target)


def test_proxy_that_is_quick_lets_everything_through(tls, trusted, sessions):
    with Receiver(tls=tls) as secure, hostile.proxy() as port:
        proxies = {"https": f"http://127.0.0.1:{port}"}
        target = endpoint(secure.url, proxies=proxies, verify=trusted)

        assert call(target, sessions).status_code == 200
