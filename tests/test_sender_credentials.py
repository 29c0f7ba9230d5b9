"""Who the site is, as it arrives on the wire; the receivers are real servers."""

import hashlib
import logging
import re
import ssl
import threading
import time
from urllib.request import parse_http_list, parse_keqv_list

import pytest
import requests
import time_machine
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPDigestAuth
from standardwebhooks import Webhook

from signal_dispatch import sender
from signal_dispatch.entries import SETTING, parse
from signal_dispatch.exceptions import EndpointNotMocked
from signal_dispatch.signing import verify
from tests.calling import UID, call, failure
from tests.once import ONCE
from tests.proxy import Proxy
from tests.receiver import HANG_UP, Raw, Receiver
from tests.tls import server_context, write_client

pytestmark = [pytest.mark.signal_dispatch_network, ONCE]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"


@pytest.fixture
def receiver():
    with Receiver() as running:
        yield running


def endpoint(url, **keys):
    found, problems = parse("crm", {"URL": url, **keys})
    assert problems == []
    return found


# Signatures.


def test_call_is_signed_over_the_bytes_that_arrive(receiver, sessions):
    body = '{"total": 1.50, "name": "Zoë"}'.encode()

    call(endpoint(receiver.url, SECRETS=[SECRET]), sessions, body=body)

    (request,) = receiver.requests
    assert request.headers["webhook-id"] == UID
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 10
    Webhook(SECRET).verify(request.body, request.headers)
    verify(request.body, request.headers, [SECRET])


def test_names_of_the_headers_are_in_lower_case_and_there_once(sessions):
    seen = []
    with Receiver() as receiver:
        receiver.script = lambda request: seen.append(list(request.headers)) or (200, {}, b"")
        stored = {"Webhook-Id": "stored", "WEBHOOK-SIGNATURE": "stored"}
        call(endpoint(receiver.url, SECRETS=[SECRET]), sessions, headers=stored)

    names = [name for name in seen[0] if name.lower().startswith("webhook-")]
    assert sorted(names) == ["webhook-id", "webhook-signature", "webhook-timestamp"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_call_without_a_body_is_signed_too(receiver, sessions, method):
    call(endpoint(receiver.url, SECRETS=[SECRET]), sessions, method=method, body=b"")

    (request,) = receiver.requests
    verify(b"", request.headers, [SECRET])


def test_while_secrets_change_both_sign(receiver, sessions):
    call(endpoint(receiver.url, SECRETS=[OTHER, SECRET]), sessions)

    (request,) = receiver.requests
    assert len(request.headers["webhook-signature"].split()) == 2
    for secret in (SECRET, OTHER):
        Webhook(secret).verify(request.body, request.headers)


def test_each_attempt_has_the_time_of_its_own_and_the_same_id(receiver, sessions):
    to = endpoint(receiver.url, SECRETS=[SECRET])
    with time_machine.travel(1_700_000_000, tick=False):
        call(to, sessions)
    with time_machine.travel(1_700_000_900, tick=False):
        call(to, sessions)

    first, second = [request.headers for request in receiver.requests]
    assert first["webhook-id"] == second["webhook-id"]
    assert [h["webhook-timestamp"] for h in (first, second)] == ["1700000000", "1700000900"]
    assert first["webhook-signature"] != second["webhook-signature"]


def test_call_without_secrets_bears_no_signature(receiver, sessions):
    call(endpoint(receiver.url), sessions)

    assert not [name for name in receiver.requests[0].headers if name.startswith("webhook-")]


class Rewriting(AuthBase):
    """Put another body into the request, as schemes do that wrap it."""

    def __init__(self, body):
        self.body = body

    def __call__(self, prepared):
        prepared.body = self.body
        prepared.prepare_content_length(self.body)
        return prepared


@pytest.mark.parametrize("body", [b'{"wrapped": 1}', '{"wrapped": "Zoë"}'])
def test_what_an_auth_object_makes_of_the_body_is_what_is_signed(receiver, sessions, body):
    call(endpoint(receiver.url, SECRETS=[SECRET], AUTH=Rewriting(body)), sessions)

    (request,) = receiver.requests
    assert request.body == (body if isinstance(body, bytes) else body.encode())
    verify(request.body, request.headers, [SECRET])


def test_body_that_is_a_stream_is_not_signed_and_not_sent(receiver, sessions):
    to = endpoint(receiver.url, SECRETS=[SECRET], AUTH=lambda: _streaming)

    error = failure(to, sessions)

    assert (error.error_class, str(error)) == (
        "credentials",
        f'{SETTING}["crm"]["SECRETS"] can\'t sign a body that is a stream.',
    )
    assert receiver.requests == []


def _streaming(prepared):
    prepared.body = iter([b"part"])
    return prepared


# Asked for when it is sent.


def test_vault_is_asked_once_for_each_attempt_in_the_thread_that_sends(receiver, sessions):
    asked = []

    def vault():
        asked.append(threading.current_thread())
        return {"X-Key": f"k{len(asked)}"}

    # The second attempt meets a dead connection, and makes its request twice.
    receiver.play((200, {}, b""), HANG_UP, (200, {}, b""))
    to = endpoint(receiver.url, HEADERS=vault)
    call(to, sessions)
    call(to, sessions)

    assert [request.headers["X-Key"] for request in receiver.requests] == ["k1", "k2", "k2"]
    assert set(asked) == {threading.current_thread()}


def test_everything_that_was_asked_for_arrives(receiver, sessions):
    to = endpoint(
        receiver.url,
        HEADERS={"X-Key": lambda: "k"},
        QUERY=lambda: {"key": "q"},
        AUTH=("user", lambda: "word"),
        SECRETS=[lambda: SECRET],
    )

    call(to, sessions)

    (request,) = receiver.requests
    assert request.path == "/orders?key=q"
    assert request.headers["X-Key"] == "k"
    assert request.headers["Authorization"] == "Basic dXNlcjp3b3Jk"
    verify(request.body, request.headers, [SECRET])


def test_vault_that_fails_makes_no_call(receiver, sessions):
    error = failure(endpoint(receiver.url, HEADERS={"X-Key": lambda: 1 / 0}), sessions)

    assert error.error_class == "credentials"
    assert str(error) == (
        f'{SETTING}["crm"]["HEADERS"]["X-Key"] was asked for, and ZeroDivisionError was raised.'
    )
    assert receiver.requests == []


def test_vault_that_takes_longer_than_the_deadline_makes_no_call(receiver, sessions):
    def vault():
        time.sleep(0.15)
        return {}

    error = failure(endpoint(receiver.url, HEADERS=vault, DEADLINE=0.1), sessions)

    assert error.error_class == "credentials"
    assert str(error) == (
        f'{SETTING}["crm"]["DEADLINE"] was over before the credentials were given.'
    )
    assert receiver.requests == []


def test_what_the_vault_took_is_no_more_there_for_the_call(receiver, sessions):
    never = threading.Event()
    receiver.script = lambda request: receiver.hold(never) or HANG_UP

    def vault():
        time.sleep(0.5)
        return {}

    began = time.monotonic()
    error = failure(endpoint(receiver.url, HEADERS=vault, DEADLINE=0.8), sessions)

    assert error.error_class == "timeout"
    assert time.monotonic() - began < 1.2


def test_auth_object_that_fails_is_told_apart_from_the_endpoint(receiver, sessions):
    def fetch_token(prepared):
        raise requests.ConnectionError("s3cret")

    error = failure(endpoint(receiver.url, AUTH=lambda: fetch_token), sessions)

    assert error.error_class == "credentials"
    assert str(error) == f'{SETTING}["crm"]["AUTH"] raised ConnectionError.'
    assert receiver.requests == []


def test_auth_object_that_meets_an_endpoint_without_a_mock_is_heard(receiver, sessions):
    def fetch_token(prepared):
        raise EndpointNotMocked("Mock it.")

    with pytest.raises(EndpointNotMocked):
        call(endpoint(receiver.url, AUTH=lambda: fetch_token), sessions)


# Digest: a dance of two requests.


def digest_script(seen, *, hold=None):
    """Challenge, and let in whoever answers as RFC 7616 says for MD5."""

    def script(request):
        told = request.headers.get("Authorization", "")
        seen.append(told[:6])
        if not told:
            challenge = 'Digest realm="shop", nonce="n0nce", qop="auth", algorithm=MD5'
            return 401, {"WWW-Authenticate": challenge}, b"who?"
        if hold:
            hold()
        given = parse_keqv_list(parse_http_list(told.removeprefix("Digest ")))
        first = md5("user:shop:word")
        second = md5(f"{request.method}:{given['uri']}")
        parts = [first, "n0nce", given["nc"], given["cnonce"], "auth", second]
        return (200 if given["response"] == md5(":".join(parts)) else 403), {}, b"{}"

    return script


def md5(text):
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def test_digest_is_one_attempt_of_two_requests(receiver, sessions):
    seen = []
    receiver.script = digest_script(seen)

    answer = call(endpoint(receiver.url, AUTH=HTTPDigestAuth("user", "word")), sessions)

    assert answer.status_code == 200
    assert seen == ["", "Digest"]
    assert [request.body for request in receiver.requests] == [b"{}"] * 2
    assert [request.connection for request in receiver.requests] == [1, 1]


def test_digest_keeps_its_nonce_from_call_to_call(receiver, sessions):
    seen = []
    receiver.script = digest_script(seen)
    to = endpoint(receiver.url, AUTH=HTTPDigestAuth("user", "word"))

    call(to, sessions)
    assert call(to, sessions).status_code == 200

    assert seen == ["", "Digest", "Digest"]


def test_both_requests_of_a_digest_are_signed(receiver, sessions):
    receiver.script = digest_script([])

    call(endpoint(receiver.url, AUTH=HTTPDigestAuth("user", "word"), SECRETS=[SECRET]), sessions)

    for request in receiver.requests:
        verify(request.body, request.headers, [SECRET])


def test_second_request_of_a_digest_meets_the_same_deadline(receiver, sessions):
    never = threading.Event()
    receiver.script = digest_script([], hold=lambda: receiver.hold(never))
    to = endpoint(receiver.url, AUTH=HTTPDigestAuth("user", "word"), DEADLINE=0.4)

    began = time.monotonic()
    error = failure(to, sessions)

    assert error.error_class == "timeout"
    assert time.monotonic() - began < 0.9


# Certificates.


@pytest.fixture
def secure(tls):
    with Receiver(tls=tls) as running:
        yield running


def test_server_of_an_unknown_authority_is_refused(secure, sessions):
    error = failure(endpoint(secure.url), sessions)

    assert error.error_class == "tls"
    assert "unable to get local issuer certificate" in str(error)
    assert secure.requests == []


def test_own_authority_is_trusted_where_it_is_named(secure, sessions, trusted):
    assert call(endpoint(secure.url, VERIFY=trusted), sessions).status_code == 200


def test_certificate_for_another_name_is_refused(sessions, authority, trusted):
    with Receiver(tls=server_context(authority, "elsewhere.example")) as receiver:
        error = failure(endpoint(receiver.url, VERIFY=trusted), sessions)

        assert error.error_class == "tls"
        assert "IP address mismatch" in str(error)
        assert receiver.requests == []


def test_client_shows_its_certificate(sessions, authority, trusted, tmp_path):
    context = server_context(authority, "127.0.0.1")
    context.load_verify_locations(trusted)
    context.verify_mode = ssl.CERT_REQUIRED
    with Receiver(tls=context) as receiver:
        cert = write_client(authority, tmp_path)

        assert call(endpoint(receiver.url, VERIFY=trusted, CERT=cert), sessions).ok
        without = failure(endpoint(receiver.url, VERIFY=trusted), sessions)

        assert without.error_class in ("tls", "protocol")  # TLS 1.3 refuses after the handshake
        assert len(receiver.requests) == 1


# Proxies.


def test_plain_call_goes_through_the_proxy_with_its_password(receiver, sessions):
    with Proxy("shop:s3cret") as proxy:
        to = endpoint(receiver.url, PROXIES={"http": f"http://shop:s3cret@{proxy.host}"})

        assert call(to, sessions).status_code == 200
        assert proxy.lines == [f"POST {receiver.url}orders HTTP/1.1"]
        assert "Proxy-Authorization" not in receiver.requests[0].headers


def test_tls_goes_through_a_tunnel_and_the_certificate_is_the_endpoints(sessions, tls, trusted):
    with (
        Receiver(tls=tls) as receiver,
        Proxy("shop:s3cret", targets={"crm.example.com": receiver.port}) as proxy,
    ):
        to = endpoint(
            "https://crm.example.com/",
            VERIFY=trusted,
            PROXIES={"https": f"http://shop:s3cret@{proxy.host}"},
        )

        assert call(to, sessions).status_code == 200
        assert [line.rpartition(" ")[0] for line in proxy.lines] == ["CONNECT crm.example.com:443"]
        assert receiver.requests[0].headers["Host"] == "crm.example.com"
        assert "Proxy-Authorization" not in receiver.requests[0].headers


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_proxy_that_refuses_us_is_told_without_the_password(sessions, scheme, receiver):
    with Proxy("shop:word") as proxy:
        to = endpoint(
            receiver.url.replace("http:", f"{scheme}:"),
            PROXIES={"all": f"http://shop:s3cret@{proxy.host}"},
        )
        if scheme == "http":
            assert call(to, sessions).status_code == 407
            return
        error = failure(to, sessions)

        assert error.error_class == "connect"
        assert str(error) == "The proxy on the way to 127.0.0.1 answered 407."
        assert receiver.requests == []


# What the libraries below log.


class OwnAdapter(HTTPAdapter):
    pass


def make_own_session():
    session = requests.Session()
    session.mount("http://", OwnAdapter())
    return session


def test_log_of_urllib3_shows_neither_path_nor_query(receiver, sessions, caplog):
    caplog.set_level(logging.DEBUG)
    receiver.play((200, {}, b""), HANG_UP, (200, {}, b""))
    to = endpoint(receiver.url + "s3cret/", QUERY={"key": "s3cret"})

    call(to, sessions, path="s3cret")
    call(to, sessions, path="s3cret")

    assert f'http://127.0.0.1:{receiver.port} "POST [redacted] HTTP/1.1" 200 0' in caplog.messages
    assert "s3cret" not in caplog.text


def test_warning_about_malformed_headers_shows_none_of_them(receiver, sessions, caplog):
    """Connections of ours refuse them; those of a factory's own adapter are urllib3's."""
    malformed = b"HTTP/1.1 200 OK\r\nX-Sound: 1\r\ns3cret no header\r\n\r\n"
    receiver.script = lambda request: Raw([malformed])
    factory = "tests.test_sender_credentials.make_own_session"

    call(endpoint(receiver.url + "s3cret/", SESSION=factory), sessions)

    told = [logging.Formatter().format(record) for record in caplog.records]
    assert told == ["Failed to parse headers (url=[redacted]): [redacted]"]


def test_log_of_a_proxied_call_shows_no_more(receiver, sessions, caplog):
    caplog.set_level(logging.DEBUG)
    with Proxy("shop:s3cret") as proxy:
        proxies = {"http": f"http://shop:s3cret@{proxy.host}"}
        call(endpoint(receiver.url, PROXIES=proxies), sessions, path="s3cret?s3cret")

    assert [r for r in caplog.records if r.name == "urllib3.connectionpool"]
    assert "s3cret" not in caplog.text


def test_calls_of_others_are_logged_as_ever(receiver, caplog):
    caplog.set_level(logging.DEBUG)

    requests.get(f"{receiver.url}open?key=1", timeout=5)

    assert re.search(r'"GET /open\?key=1 HTTP/1.1" 200', caplog.text)


def test_guard_is_asked_before_the_vault(receiver, sessions, monkeypatch):
    def refuse(to, session):
        raise EndpointNotMocked("Mock it.")

    def vault():
        raise AssertionError("It was asked.")

    monkeypatch.setattr(sender, "network_guard", refuse)
    with pytest.raises(EndpointNotMocked):
        call(endpoint(receiver.url, HEADERS=vault), sessions)
