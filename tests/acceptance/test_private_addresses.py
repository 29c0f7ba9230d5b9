"""Endpoints that may not lead into the site's own network: no connection is ever made there."""

import contextlib
import socket

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from signal_dispatch.addresses import is_public
from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import SendError
from signal_dispatch.sessions import SessionCache
from tests import hostile
from tests.acceptance.soak import report, scaled
from tests.calling import call, failure
from tests.once import ONCE
from tests.receiver import Receiver

# The receivers are real servers.
pytestmark = [ONCE, pytest.mark.signal_dispatch_network]

PUBLIC = "93.184.216.34"
REAL = socket.getaddrinfo
# Whatever the system's resolver, or the parser of URLs, takes for an address.
SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::1]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fec0::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[::]",
    "0",
    "0.0.0.0",  # noqa: S104 - nothing is bound
    "10.0.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "0xa9fea9fe",
    "172.16.0.1",
    "192.168.0.1",
    "192.88.99.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
]


def guarded(url, **values):
    return Endpoint("crm", url, timeout=(1, 1), deadline=2, allow_private_addresses=False, **values)


@contextlib.contextmanager
def dns(*answers):
    """Let the system's resolver give these answers one after the other, the last one for ever.

    An answer is a list of addresses with ports. Yields the list of names that were asked for.
    """
    asked = []

    def answer(host, port, family=0, type=0, proto=0, flags=0):  # noqa: A002 - socket's own
        if flags & socket.AI_NUMERICHOST:
            return REAL(host, port, family, type, proto, flags)
        given = answers[min(len(asked), len(answers) - 1)]
        asked.append(host)
        return [
            (socket.AF_INET6, type, 6, "", (ip, at, 0, 0))
            if ":" in ip
            else (socket.AF_INET, type, 6, "", (ip, at))
            for ip, at in given
        ]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", answer)
        yield asked


@contextlib.contextmanager
def connections():
    """Yield the list of addresses that a connection was tried to; none is made."""
    tried = []

    def refuse(sock, address):
        tried.append(address[0])
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        yield tried


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_address_in_any_spelling_is_refused_for_good(sessions, host, scheme):
    with connections() as tried:
        error = failure(guarded(f"{scheme}://{host}/"), sessions)

    assert tried == []
    assert (error.error_class, error.for_good) == ("address", True)
    assert "an address that is not public, and ALLOW_PRIVATE_ADDRESSES is False" in str(error)


def test_digits_of_another_script_make_no_address(sessions):
    with connections() as tried:
        error = failure(guarded("http://１２７.0.0.1/"), sessions)  # noqa: RUF001 - full width

    assert tried == []
    assert error.error_class == "protocol"


def test_forbidden_forms_are_counted(sessions):
    """The figure of the test above, for the report, and with a server that listens."""
    with Receiver() as receiver, connections() as tried:
        ports = (receiver.port,)
        for host in SPELLINGS:
            failure(guarded(f"http://{host}:{receiver.port}/", ports=ports), sessions)
    report("forms of forbidden addresses", forms=len(SPELLINGS), connections=len(tried))

    assert tried == []
    assert receiver.requests == []


@pytest.mark.parametrize("name", ["localhost", "localhost.", "LOCALHOST", "ip6-localhost"])
def test_name_of_this_host_is_refused(receiver, sessions, name):
    url = f"http://{name}:{receiver.port}/"
    with connections() as tried:
        error = failure(guarded(url, ports=(receiver.port,)), sessions)

    assert tried == []
    assert error.error_class in ("address", "dns"), "whether the system knows the name or not"
    assert not error.for_good, "a name may lead elsewhere tomorrow"


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["::1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        ["2606:4700::1111", "10.0.0.1"],
        ["2606:4700::1111", PUBLIC, "::ffff:10.0.0.1"],
        [PUBLIC, "fe80::1%lo"],
        [PUBLIC, "64:ff9b::a9fe:a9fe"],
    ],
)
def test_one_address_that_is_not_public_spoils_the_name(receiver, sessions, answer):
    with dns([(ip, 80) for ip in answer]), connections() as tried:
        error = failure(guarded("http://crm.example.com/"), sessions)

    assert tried == []
    assert (error.error_class, error.for_good) == ("address", False)
    assert str(error).startswith("crm.example.com leads to an address that is not public")
    assert answer[0] not in str(error)


def test_public_addresses_are_tried_in_their_order(sessions):
    with dns([("2606:4700::1111", 80), (PUBLIC, 80)]) as asked, connections() as tried:
        error = failure(guarded("http://crm.example.com/"), sessions)

    assert tried == ["2606:4700::1111", PUBLIC]
    assert asked == ["crm.example.com"]
    assert error.error_class == "connect"


def test_second_answer_of_a_resolver_that_rebinds_is_never_asked_for(receiver, sessions):
    with dns([(PUBLIC, 80)], [("127.0.0.1", receiver.port)]) as asked, connections() as tried:
        failure(guarded("http://crm.example.com/"), sessions)
    report("name that changes between check and connect", look_ups=len(asked), private=0)

    assert asked == ["crm.example.com"]
    assert tried == [PUBLIC]
    assert receiver.requests == []


def addresses():
    near = st.sampled_from(
        ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "::ffff:7f00:1", "fec0::1"]
    )
    return (
        near | st.sampled_from([PUBLIC, "2606:4700::1111", "1.1.1.1"]) | st.ip_addresses().map(str)
    )


def answers():
    return st.lists(
        st.lists(addresses().map(lambda ip: (ip, 80)), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    )


@given(answers(), st.sampled_from(["http", "https"]))
@example([[(PUBLIC, 80)], [("127.0.0.1", 80)]], "https")
@example([[(PUBLIC, 80), ("127.0.0.1", 80)]], "http")
@given_settings(
    max_examples=scaled(150, 5000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_resolver_leads_to_an_address_that_was_not_looked_at(given_answers, scheme):
    sessions = SessionCache()
    try:
        with dns(*given_answers) as asked, connections() as tried:
            for attempt in range(len(given_answers)):
                before = len(tried)
                with pytest.raises(SendError) as caught:
                    call(guarded(f"{scheme}://crm.example.com/"), sessions)
                answer = [ip for ip, _port in given_answers[attempt]]
                sound = all(map(is_public, answer))
                assert tried[before:] == (answer if sound else [])
                assert caught.value.error_class == ("connect" if sound else "address")
            assert len(asked) == len(given_answers), "each attempt asks once"
            assert all(map(is_public, tried))
    finally:
        sessions.close()


# Ports, sessions, proxies.


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://crm.example.com:22/", 22),
        ("https://crm.example.com:6379/", 6379),
        ("https://crm.example.com:8443/", 8443),
    ],
)
def test_other_ports_are_refused_for_good(sessions, url, port):
    with dns([(PUBLIC, port)]) as asked, connections() as tried:
        error = failure(guarded(url), sessions)

    assert (asked, tried) == ([], [])
    assert (error.error_class, error.for_good) == ("address", True)
    assert (
        str(error) == f"Port {port} of crm.example.com is not in PORTS of the endpoint's settings."
    )


@pytest.mark.parametrize("url", ["https://crm.example.com:8443/", "https://crm.example.com:443/"])
def test_ports_that_settings_allow_are_tried(sessions, url):
    with dns([(PUBLIC, 8443)]), connections() as tried:
        failure(guarded(url, ports=(443, 8443)), sessions)

    assert tried == [PUBLIC]


def test_default_port_of_a_scheme_may_be_forbidden(sessions):
    with connections() as tried:
        error = failure(guarded("http://crm.example.com/", ports=(443,)), sessions)

    assert tried == []
    assert str(error) == "Port 80 of crm.example.com is not in PORTS of the endpoint's settings."


def test_session_in_a_users_own_hands_is_guarded_too(receiver, sessions):
    session = sessions.get(guarded("https://crm.example.com/", ports=(443, receiver.port)))

    with pytest.raises(SendError, match="not public"):
        session.get(receiver.url, timeout=1)
    assert receiver.requests == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_may_stand_in_the_own_network_and_asks_for_the_name_itself(sessions, scheme):
    with hostile.proxy(b"HTTP/1.1 403 Forbidden\r\n\r\n") as port:
        proxies = {scheme: f"http://127.0.0.1:{port}"}
        with dns([("127.0.0.1", 80)]) as asked:
            if scheme == "https":
                error = failure(guarded("https://crm.example.com/", proxies=proxies), sessions)
                assert str(error) == "The proxy on the way to crm.example.com answered 403."
            else:
                target = guarded("http://crm.example.com/", proxies=proxies)
                assert call(target, sessions).status_code == 403
    assert asked == []


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "http://[::1]/", "http://10.1:8080/"])
def test_proxy_is_not_asked_for_a_private_address_or_a_forbidden_port(sessions, url):
    with Receiver() as proxy:
        error = failure(guarded(url, proxies={"http": proxy.url}), sessions)

        assert proxy.requests == []
    assert (error.error_class, error.for_good) == ("address", True)


def test_proxy_of_the_environment_is_no_way_round(receiver, sessions, monkeypatch):
    with Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        with dns([("127.0.0.1", 80)]), connections() as tried:
            error = failure(guarded("http://crm.example.com/"), sessions)

        assert (proxy.requests, tried) == ([], [])
    assert error.error_class == "address"


# What stays as it is.


def test_host_name_and_certificate_stay_those_of_the_name(tls, trusted, sessions, monkeypatch):
    """A public name, as far as the guard can see, that leads to a server of the test."""
    monkeypatch.setattr("signal_dispatch.wire.is_public", lambda ip: True)
    names = []
    tls.sni_callback = lambda sock, name, context: names.append(name)
    with Receiver(tls=tls) as secure, dns([("127.0.0.1", secure.port)]):
        target = guarded("https://crm.example.com/", verify=trusted)
        assert call(target, sessions).status_code == 200
        wrong = guarded("https://erp.example.com/", verify=trusted)
        error = failure(wrong, sessions)
        (request,) = secure.requests
    tls.sni_callback = None

    assert request.headers["Host"] == "crm.example.com"
    assert names == ["crm.example.com", "erp.example.com"]
    assert error.error_class == "tls"
    assert "Hostname mismatch" in str(error)


def test_without_the_guard_nothing_is_asked_of_an_address(receiver, sessions):
    assert call(Endpoint("crm", receiver.url), sessions).status_code == 200
