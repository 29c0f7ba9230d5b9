"""Whatever comes back, or does not: an attempt on record that a person understands."""

import datetime
import gzip
import logging
import socket
import ssl
import threading
import zlib

import pytest
import trustme

from signal_dispatch import ModelDispatch
from signal_dispatch.backends import backends
from signal_dispatch.models import Delivery
from signal_dispatch.registry import registry
from tests.acceptance.soak import report
from tests.once import ONCE
from tests.receiver import HANG_UP, Raw, Receiver
from tests.shop.models import Order

pytestmark = [ONCE, pytest.mark.django_db(transaction=True)]

OK = b"HTTP/1.1 200 OK\r\n"
SHORT = b"Content-Length: 4\r\n\r\nnope"
GZIP = gzip.compress(b'{"id": 7}' * 100)


NOT_HTTP = [
    ([OK, b"no header\r\n", SHORT], "The answer has a line that is no header."),
    ([OK, b"X Y: 1\r\n", SHORT], "The answer has a line that is no header."),
    ([OK, b"X: ", b"x" * 70_000, b"\r\n", SHORT], "more than 65536 bytes of lines"),
    ([OK, b"X: y\r\n" * 200, SHORT], "the answer can't be read"),
    ([OK, b"X: y\r\n"], "the answer ends too early"),
    ([OK, b"Content-Encoding: gzip\r\n", SHORT], "not valid gzip, or not whole"),
    ([OK, b"Content-Encoding: deflate\r\n", SHORT], "not valid deflate, or not whole"),
    ([OK, b"Content-Encoding: gzip\r\n\r\n", GZIP[:-9]], "not valid gzip, or not whole"),
    ([OK, b"Content-Length: 10\r\n\r\nhalf"], "the answer ends too early"),
    ([OK, b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"], "its length in two ways"),
    ([OK, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"], "the length of a chunk is missing"),
    ([OK, b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"], "the answer ends too early"),
    ([b"<html>HTTP/0.9</html>\r\n"], "the answer begins with no status"),
    ([b"SSH-2.0-OpenSSH_9.6\r\n"], "the answer begins with no status"),
    ([b"\x00\xff\x16\x03\r\n\r\n"], "the answer begins with no status"),
    ([b"HTTP/1.1 abc\r\n\r\n"], "the answer begins with no status"),
    ([b"HTTP/2 200\r\n\r\n"], "the answer can't be read"),
    ([b""], "the connection was closed without an answer"),
]


@pytest.fixture
def made(as_in_production, declare, receiver, settings, caplog):
    """Save an order, let the threads send it once; return its attempt and its delivery."""
    caplog.set_level(logging.DEBUG)

    def make(*answer, base=ModelDispatch, **changed):
        entry = {"URL": receiver.url, "RETRY": {"delays": [0]}, "TIMEOUT": 0.3, "DEADLINE": 0.6}
        entry["BREAKER"] = None  # which would open after ten bad answers
        settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": entry | changed}
        if answer:
            receiver.script = lambda request: Raw(answer)
        if not len(registry):
            declare(Order, base=base)
        Order.objects.create(number=f"A-{Order.objects.count()}")
        backends["default"].drain(20)
        delivery = Delivery.objects.latest("pk")
        attempt = delivery.attempt_set.get()
        report(f"{attempt.error_class or 'delivered'}: {attempt.error}", ms=attempt.duration_ms)
        assert not [r for r in caplog.records if r.exc_info], "no traceback"
        assert "s3cret" not in caplog.text + attempt.error + delivery.reason
        return attempt, delivery

    return make


def test_what_is_not_http(made):
    for answer, words in NOT_HTTP:
        attempt, delivery = made(*answer)

        assert attempt.error_class == "protocol", answer
        assert words in attempt.error, answer
        assert (delivery.state, delivery.error_class) == ("failed", "protocol")
        assert delivery.reason == attempt.error


@pytest.mark.parametrize("value", [b"Z\xc3\xbcrich \xe2\x82\xac", b"\xff\xfe\x85", b"a\x00b\x1c"])
def test_headers_in_no_known_alphabet_are_kept(made, value):
    attempt, delivery = made(OK, b"X-City: ", value, b"\r\nContent-Length: 2\r\n\r\n{}")

    assert delivery.state == "delivered"
    assert attempt.response_headers["X-City"] == value.decode("latin-1").replace("\x00", "\ufffd")


@pytest.mark.parametrize("packed", [GZIP, zlib.compress(b"x"), b""])
def test_sound_answers_are_delivered(made, packed):
    encoding = b"gzip" if packed == GZIP else b"deflate"
    length = str(len(packed)).encode()
    head = b"Content-Encoding: " + encoding + b"\r\nContent-Length: " + length + b"\r\n\r\n"

    assert made(OK, head, packed)[1].state == "delivered"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("a" * 64 + ".example.com", "could not be resolved: no such name can exist."),
        ("crm.invalid", "could not be resolved: Name or service not known."),
    ],
)
def test_name_that_leads_nowhere(made, monkeypatch, host, words):
    real = socket.getaddrinfo

    def resolve(name, *args):
        if name == "crm.invalid":  # a resolver that is far away takes its time
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(name, *args)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    attempt, delivery = made(URL=f"https://{host}/s3cret/", QUERY={"key": "s3cret"})

    assert (attempt.error_class, delivery.error_class) == ("dns", "dns")
    assert attempt.error == f"The name of {host} {words}"


def test_port_where_nobody_listens(made):
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"
    attempt, _delivery = made(URL=f"http://{host}/s3cret/")

    assert attempt.error_class == "connect"
    assert attempt.error == f"{host} could not be reached: Connection refused."


def test_silence(made, receiver):
    never = threading.Event()
    receiver.script = lambda request: receiver.hold(never) or HANG_UP
    attempt, _delivery = made()

    assert attempt.error_class == "timeout"
    assert attempt.error.endswith(" did not answer in time.")


def server(authority, *names, **values):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **values).configure_cert(context)
    return context


@pytest.mark.parametrize(
    ("names", "known", "expired", "words"),
    [
        (["127.0.0.1"], False, False, "unable to get local issuer certificate"),
        (["erp.example.com"], True, False, "IP address mismatch"),
        (["127.0.0.1"], True, True, "certificate has expired"),
    ],
)
def test_certificate_that_proves_nothing(made, authority, trusted, names, known, expired, words):
    now = datetime.datetime.now(datetime.UTC)
    values = {"not_after": now - datetime.timedelta(days=1)} if expired else {}
    signer = authority if known else trustme.CA()
    with Receiver(tls=server(signer, *names, **values)) as secure:
        attempt, _delivery = made(URL=secure.url + "s3cret/", VERIFY=trusted)
        host = f"127.0.0.1:{secure.port}"

    assert attempt.error_class == "tls"
    assert attempt.error.startswith(f"No secure connection to {host}: ")
    assert words in attempt.error


def test_server_that_speaks_no_tls(made, receiver):
    attempt, _delivery = made(URL=receiver.url.replace("http:", "https:"))

    assert attempt.error_class == "tls"


def test_address_that_is_not_public(made):
    attempt, delivery = made(ALLOW_PRIVATE_ADDRESSES=False, RETRY={"delays": [0, 60]})

    assert (attempt.error_class, attempt.outcome, delivery.state) == (
        "address",
        "rejected",
        "failed",
    )
    assert "PORTS" in attempt.error


class Handling(ModelDispatch):
    """A dispatch that needs the answer whole."""

    def handle_response(self, delivery, response):
        raise AssertionError("it was cut")


def test_answer_that_is_too_large_for_a_handler(made, receiver):
    receiver.reply(200, body=b"x" * 5000)
    _attempt, delivery = made(base=Handling, MAX_RESPONSE_BYTES=100)

    assert (delivery.state, delivery.error_class) == ("failed", "too_large")
    assert "longer than 100 bytes" in delivery.reason


@pytest.mark.parametrize(("status", "words"), [(404, "404 Not Found"), (307, "not followed")])
def test_status_of_failure(made, receiver, status, words):
    receiver.reply(status)
    attempt, delivery = made()

    assert (attempt.error_class, delivery.error_class) == ("status", "status")
    assert words in delivery.reason
