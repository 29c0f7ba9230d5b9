import http.client
import logging
import socket
import time

import pytest
import requests

from signal_dispatch import resolving, wire
from signal_dispatch.entries import Endpoint
from signal_dispatch.sessions import new_session
from tests import hostile
from tests.calling import call, failure
from tests.once import ONCE
from tests.receiver import HANG_UP, Raw, Receiver

# The receivers are real servers.
pytestmark = [ONCE, pytest.mark.signal_dispatch_network]


@pytest.fixture
def names(monkeypatch):
    """What names resolve to, as a dict of lists; each look-up is noted under ``asked``."""

    class Names(dict):
        asked = []

    def resolve(host, port, seconds):
        made.asked.append(host)
        found = made.get(host, [])
        if not found:
            return resolving.resolve(host, port, seconds)
        return [(socket.AF_INET, address) for address in found]

    made = Names()
    made.asked = []
    monkeypatch.setattr(wire, "resolve", resolve)
    return made


# The hooks of urllib3 and http.client.


def test_connections_are_made_by_our_own_hook(receiver, sessions, names):
    """Fails if urllib3 no longer asks ``_new_conn`` for a socket."""
    names["crm.example.com"] = [("127.0.0.1", receiver.port)]

    assert call(Endpoint("crm", "http://crm.example.com/"), sessions).status_code == 200
    assert names.asked == ["crm.example.com"]
    assert receiver.requests[0].headers["Host"] == "crm.example.com"


def test_tls_knows_the_name_that_was_called_and_not_the_address(tls, trusted, sessions, names):
    asked = []
    tls.sni_callback = lambda sock, name, context: asked.append(name)
    with Receiver(tls=tls) as secure:
        names["crm.example.com"] = [("127.0.0.1", secure.port)]
        endpoint = Endpoint("crm", "https://crm.example.com/", verify=trusted)

        assert call(endpoint, sessions).status_code == 200
        assert secure.requests[0].headers["Host"] == "crm.example.com"
    tls.sni_callback = None
    assert asked == ["crm.example.com"]


def test_dot_at_the_end_of_a_name_is_for_the_resolver_alone(receiver, sessions, names):
    names["crm.example.com."] = [("127.0.0.1", receiver.port)]

    call(Endpoint("crm", "http://crm.example.com./"), sessions)

    assert names.asked == ["crm.example.com."]


def test_tunnel_through_a_proxy_is_our_own_too(tls, trusted, sessions, monkeypatch):
    """Fails if http.client no longer asks ``_tunnel`` for the way through a proxy."""
    limits = []
    real = wire._Connection._limit

    def limit(self, sock, longest=float("inf")):
        limits.append(longest)
        real(self, sock, longest)

    monkeypatch.setattr(wire._Connection, "_limit", limit)
    with Receiver(tls=tls) as secure, hostile.proxy() as port:
        proxies = {"https": f"http://127.0.0.1:{port}"}
        call(Endpoint("crm", secure.url, proxies=proxies, verify=trusted), sessions)

    assert len(limits) == 3, "before connecting, after it, and after the tunnel"


# Which address is taken.


def test_kept_connection_resolves_no_name(receiver, sessions, names):
    names["crm.example.com"] = [("127.0.0.1", receiver.port)]
    endpoint = Endpoint("crm", "http://crm.example.com/")
    for _ in range(3):
        call(endpoint, sessions)

    assert names.asked == ["crm.example.com"]


def test_next_address_is_tried_where_one_refuses(receiver, sessions, names):
    with socket.create_server(("127.0.0.1", 0)) as free:
        refusing = free.getsockname()
    names["crm.example.com"] = [refusing, ("127.0.0.1", receiver.port)]

    assert call(Endpoint("crm", "http://crm.example.com/"), sessions).status_code == 200


def test_address_that_never_answers_leaves_time_for_the_next(receiver, sessions, names):
    with hostile.black_hole() as port:
        names["crm.example.com"] = [("127.0.0.1", port), ("127.0.0.1", receiver.port)]
        endpoint = Endpoint("crm", "http://crm.example.com/", timeout=(9, 9), deadline=1)
        began = time.monotonic()

        assert call(endpoint, sessions).status_code == 200
        assert 0.4 < time.monotonic() - began < 0.9


def test_connect_timeout_is_for_each_address(receiver, sessions, names):
    with hostile.black_hole() as port:
        names["crm.example.com"] = [("127.0.0.1", port), ("127.0.0.1", receiver.port)]
        endpoint = Endpoint("crm", "http://crm.example.com/", timeout=(0.2, 9), deadline=9)
        began = time.monotonic()

        assert call(endpoint, sessions).status_code == 200
        assert 0.2 <= time.monotonic() - began < 2


def test_last_failure_of_several_addresses_is_told(sessions, names):
    with socket.create_server(("127.0.0.1", 0)) as free:
        refusing = free.getsockname()
    names["crm.example.com"] = [refusing, refusing]

    error = failure(Endpoint("crm", "http://crm.example.com/"), sessions)

    assert error.error_class == "connect"
    assert str(error) == "crm.example.com could not be reached: Connection refused."


def test_session_without_a_deadline_connects_without_one(receiver, sessions):
    session = sessions.get(Endpoint("crm", receiver.url))

    assert session.post(receiver.url, data=b"x", timeout=None).status_code == 200


# Proxies.


@pytest.mark.parametrize("status", [b"403 Forbidden", b"407 Proxy Authentication Required"])
def test_proxy_that_refuses_the_tunnel_is_told_with_its_status(sessions, status):
    with hostile.proxy(b"HTTP/1.1 " + status + b"\r\n\r\n") as port:
        proxies = {"https": f"http://127.0.0.1:{port}"}
        error = failure(Endpoint("crm", "https://crm.example.com/", proxies=proxies), sessions)

    assert error.error_class == "connect"
    assert str(error) == (
        f"The proxy on the way to crm.example.com answered {status[:3].decode()}."
    )


def test_proxy_whose_name_is_unknown_is_not_taken_for_the_endpoint(sessions, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    proxies = {"https": "http://proxy.example:3128"}

    error = failure(Endpoint("crm", "https://crm.example.com/", proxies=proxies), sessions)

    assert error.error_class == "connect"
    assert str(error) == (
        "The proxy on the way to crm.example.com could not be used: Name or service not known."
    )


# What is written to the log.


def test_url_of_a_call_is_in_no_log_whatever_its_level(receiver, sessions, caplog):
    caplog.set_level(logging.DEBUG)
    endpoint = Endpoint(
        "crm",
        receiver.url + "s3cret/",
        headers={"Authorization": "s3cret"},
        query=(("key", "s3cret"),),
        auth=("user", "s3cret"),
    )
    receiver.play((200, {}, b"{}"), Raw([b"HTTP/1.1 200 OK\r\nno header\r\n\r\n"]), HANG_UP)

    call(endpoint, sessions)
    failure(endpoint, sessions)
    failure(endpoint, sessions)

    assert len(receiver.requests) == 3
    assert "s3cret" not in caplog.text


def test_other_calls_of_the_site_are_logged_as_ever(receiver, caplog):
    caplog.set_level(logging.DEBUG)

    requests.get(receiver.url + "elsewhere", timeout=5)

    assert "elsewhere" in caplog.text


# How a call leaves


@pytest.fixture
def sent(monkeypatch):
    """What was handed to the socket, a piece each."""
    pieces, send = [], http.client.HTTPConnection.send
    monkeypatch.setattr(
        http.client.HTTPConnection,
        "send",
        lambda self, data: (pieces.append(data), send(self, data)),
    )
    return pieces


def test_head_and_body_leave_in_one_piece(receiver, sessions, sent):
    for _number in range(2):
        call(Endpoint("crm", receiver.url), sessions, body=b'{"number": "A-1"}')

    assert [piece.count(b"POST") for piece in sent] == [1, 1]
    assert all(piece.endswith(b'\r\n\r\n{"number": "A-1"}') for piece in sent)
    assert [request.body for request in receiver.requests] == [b'{"number": "A-1"}'] * 2


def test_a_large_body_is_not_copied_to_leave_with_the_head(receiver, sessions, sent):
    call(Endpoint("crm", receiver.url), sessions, body=b"x" * 100_000)

    assert [len(piece) for piece in sent[1:]] == [100_000]
    assert receiver.requests[0].body == b"x" * 100_000


def test_a_body_whose_head_was_never_written_leaves_with_no_other(receiver, sent):
    session = new_session(Endpoint("crm", receiver.url))
    prepared = requests.Request("POST", receiver.url).prepare()
    adapter = session.get_adapter(receiver.url)
    pool = adapter.get_connection_with_tls_context(prepared, verify=True)
    connection = pool.ConnectionCls(pool.host, pool.port)
    with pytest.raises(ValueError, match="Invalid header"):
        connection.request("POST", "/a", b"secret", {"Content-Length": "6", "X": "two\nlines"})
    connection.send(b"GET ")
    connection.close()

    assert sent == [b"GET "]
