import gzip
import socket
import struct
import threading

import pytest
import requests
import responses
from requests.auth import HTTPDigestAuth

from signal_dispatch import sender
from signal_dispatch.credentials import Asked
from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import EndpointNotMocked
from signal_dispatch.sender import Call, headers_of, url_of
from tests.calling import UID, call, elapsed_failure, failure
from tests.once import ONCE
from tests.receiver import HANG_UP, Raw, Receiver

# The receiver is a real server.
pytestmark = [ONCE, pytest.mark.signal_dispatch_network]


# What goes on the wire.


def test_stored_headers_win_over_the_endpoints_and_ours_over_all():
    stored = {"x-b": "2", "idempotency-key": "mine"}

    headers = headers_of(Call("POST", "", stored, b"", UID), {"X-A": "1", "X-B": "1"})

    assert {name.lower(): value for name, value in headers.items()} == {
        "x-a": "1",
        "x-b": "2",
        "idempotency-key": UID,
        "user-agent": "django-signal-dispatch/0.1.0",
    }


def test_user_agent_may_be_the_endpoints_own():
    headers = headers_of(Call("GET", "", {}, b"", UID), {"user-agent": "shop/2"})

    assert headers == {"user-agent": "shop/2"}


def test_query_of_the_endpoint_is_added_after_that_of_the_path():
    def url(path, added=(("key", "a&b"),)):
        endpoint = Endpoint("maps", "https://maps.example.com/")
        return url_of(Call("GET", path, {}, b"", UID), endpoint, added)

    assert url("geo") == "https://maps.example.com/geo?key=a%26b"
    assert url("geo?q=x") == "https://maps.example.com/geo?q=x&key=a%26b"
    assert url("geo", ()) == "https://maps.example.com/geo"


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
@pytest.mark.parametrize("body", [b"", b'{"a": 1}'])
@pytest.mark.parametrize("path", ["orders/7", "a b/\N{SNOWMAN}?x=1&y=%20z"])
def test_a_request_is_prepared_as_the_session_would(method, body, path):
    session = requests.Session()
    headers = headers_of(Call(method, path, {"X-One": "1", "accept": "text/x"}, body, UID), {})
    request = requests.Request(
        method, f"https://crm.example.com/{path}", headers, data=body or None
    )
    ours, theirs = sender.prepare(request, session), session.prepare_request(request)

    assert (ours.method, ours.url, ours.body) == (theirs.method, theirs.url, theirs.body)
    assert list(ours.headers.items()) == list(theirs.headers.items())


class Counting(requests.Session):
    """A session of a site's own."""


def with_auth(request, session):
    request.auth = ("ada", "s3cret")


def with_cookie(request, session):
    session.cookies.set("a", "1")


def with_params(request, session):
    session.params = {"key": "1"}


def with_auth_of_its_own(request, session):
    session.auth = ("ada", "s3cret")


def with_a_hook(request, session):
    session.hooks["response"].append(print)


@pytest.mark.parametrize(
    "add", [with_auth, with_cookie, with_params, with_auth_of_its_own, with_a_hook]
)
def test_what_a_session_adds_is_its_own_to_prepare(add, monkeypatch):
    session = requests.Session()
    request = requests.Request("POST", "https://crm.example.com/")
    add(request, session)
    monkeypatch.setattr(session, "prepare_request", lambda request: "by the session")

    assert sender.prepare(request, session) == "by the session"


def test_a_session_of_a_sites_own_prepares_itself(monkeypatch):
    session = Counting()
    monkeypatch.setattr(session, "prepare_request", lambda request: "by the session")

    assert sender.prepare(requests.Request("GET", "https://a.example"), session) == "by the session"


def test_call_shows_no_secret():
    built = Call("POST", "s3cret", {"Authorization": "s3cret"}, b"s3cret", UID)

    assert repr(built) == f"Call(method='POST', uid='{UID}')"


def test_call_arrives_whole_and_its_answer_comes_back(receiver, sessions):
    receiver.reply(201, json={"id": "c-7"}, headers={"X-Request": "9"})
    endpoint = Endpoint(
        "crm", receiver.url + "api/", headers={"X-Key": "k"}, query=(("token", "t"),)
    )

    response = call(
        endpoint,
        sessions,
        path="orders/A%2F1",
        headers={"Content-Type": "application/json"},
        body=b'{"total": 1.50}',
    )

    (request,) = receiver.requests
    assert (request.method, request.path) == ("POST", "/api/orders/A%2F1?token=t")
    assert request.body == b'{"total": 1.50}'
    assert request.headers["Idempotency-Key"] == UID
    assert request.headers["X-Key"] == "k"
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["User-Agent"].startswith("django-signal-dispatch/")
    assert response.status_code == 201
    assert response.json() == {"id": "c-7"}
    assert response.headers["x-request"] == "9"
    assert response.elapsed.total_seconds() > 0
    assert not response.truncated


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_methods_without_a_body_send_none(receiver, sessions, method):
    call(Endpoint("crm", receiver.url), sessions, method=method, body=b"")

    (request,) = receiver.requests
    assert request.body == b""
    assert request.headers.get("Content-Length", "0") == "0"
    assert ("Idempotency-Key" in request.headers) == (method == "DELETE")


def test_credentials_are_added(receiver, sessions):
    call(Endpoint("crm", receiver.url, auth=("user", "word")), sessions)

    assert receiver.requests[0].headers["Authorization"] == "Basic dXNlcjp3b3Jk"


def make_digest_auth():
    return HTTPDigestAuth("user", "word")


def test_auth_objects_that_answer_a_challenge_work(receiver, sessions):
    challenge = {"WWW-Authenticate": 'Digest realm="r", nonce="n", qop="auth"'}
    receiver.play((401, challenge, b""), (200, {}, b"{}"))
    endpoint = Endpoint("crm", receiver.url, auth=Asked("tests.test_sender.make_digest_auth"))

    assert call(endpoint, sessions).status_code == 200
    assert receiver.requests[1].headers["Authorization"].startswith("Digest ")


@pytest.mark.parametrize("status", [400, 404, 429, 500, 503])
def test_failing_status_is_an_answer_and_no_error(receiver, sessions, status):
    receiver.reply(status, body=b"no")

    response = call(Endpoint("crm", receiver.url), sessions)

    assert (response.status_code, response.content) == (status, b"no")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(receiver, sessions, status):
    with Receiver() as elsewhere:
        receiver.reply(status, headers={"Location": elsewhere.url})

        response = call(Endpoint("crm", receiver.url), sessions)

        assert response.status_code == status
        assert elsewhere.requests == []


def test_body_of_a_redirect_is_bounded_too(receiver, sessions):
    endless = (b"x" * 4096 for _ in iter(int, 1))
    receiver.script = lambda request: (302, {"Location": "/"}, endless)

    response = call(Endpoint("crm", receiver.url, max_response_bytes=100), sessions)

    assert (len(response.content), response.truncated) == (100, True)


def test_cookies_are_not_replayed(receiver, sessions):
    receiver.reply(200, headers={"Set-Cookie": "session=1; Path=/"})
    endpoint = Endpoint("crm", receiver.url)

    call(endpoint, sessions)
    call(endpoint, sessions)

    assert "Cookie" not in receiver.requests[1].headers


def test_proxy_of_the_environment_is_ignored(receiver, sessions, monkeypatch):
    with Receiver() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("no_proxy", "")

        call(Endpoint("crm", receiver.url), sessions)

        assert len(receiver.requests) == 1
        assert proxy.requests == []


def test_proxy_of_the_settings_is_used(receiver, sessions):
    with Receiver() as proxy:
        call(Endpoint("crm", receiver.url, proxies={"http": proxy.url}), sessions)

        assert proxy.requests[0].path == receiver.url + "orders"
        assert receiver.requests == []


def test_netrc_is_ignored(receiver, sessions, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))

    call(Endpoint("crm", receiver.url), sessions)

    assert "Authorization" not in receiver.requests[0].headers


# How much is read.


def test_body_as_long_as_allowed_is_whole(receiver, sessions):
    receiver.reply(200, body=b"x" * 100)

    response = call(Endpoint("crm", receiver.url, max_response_bytes=100), sessions)

    assert (len(response.content), response.truncated) == (100, False)


def test_longer_body_is_cut_and_its_connection_closed(receiver, sessions):
    receiver.reply(200, body=b"x" * 1_000_000)
    endpoint = Endpoint("crm", receiver.url, max_response_bytes=100)

    response = call(endpoint, sessions)
    call(endpoint, sessions)

    assert (response.content, response.truncated) == (b"x" * 100, True)
    assert [request.connection for request in receiver.requests] == [1, 2]


def test_endless_body_is_cut(receiver, sessions):
    endless = (b"x" * 4096 for _ in iter(int, 1))
    receiver.script = lambda request: (200, {}, endless)

    response = call(Endpoint("crm", receiver.url), sessions)

    assert (len(response.content), response.truncated) == (64 * 1024, True)


def test_limit_counts_decoded_bytes(receiver, sessions):
    packed = gzip.compress(b"x" * 10_000_000)
    receiver.reply(200, body=packed, headers={"Content-Encoding": "gzip"})

    response = call(Endpoint("crm", receiver.url, max_response_bytes=1000), sessions)

    assert len(packed) < 64 * 1024
    assert (response.content, response.truncated) == (b"x" * 1000, True)


# How long it takes.


def test_silent_server_meets_the_read_timeout(receiver, sessions):
    never = threading.Event()
    receiver.script = lambda request: receiver.hold(never) or HANG_UP
    endpoint = Endpoint("crm", receiver.url, timeout=(1.0, 0.2), deadline=10)

    error, seconds = elapsed_failure(endpoint, sessions)

    assert error.error_class == "timeout"
    assert 0.2 <= seconds < 2
    assert str(error) == f"{endpoint.host} did not answer in time."


def test_silent_server_meets_a_deadline_shorter_than_the_read_timeout(receiver, sessions):
    never = threading.Event()
    receiver.script = lambda request: receiver.hold(never) or HANG_UP
    endpoint = Endpoint("crm", receiver.url, timeout=(10, 10), deadline=0.3)

    error, seconds = elapsed_failure(endpoint, sessions)

    assert error.error_class == "timeout"
    assert 0.3 <= seconds < 2


def test_dripping_body_meets_the_deadline(receiver, sessions):
    receiver.script = lambda request: Raw(
        receiver.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000, 0.005)
    )
    endpoint = Endpoint("crm", receiver.url, timeout=(1, 1), deadline=0.6)

    error, seconds = elapsed_failure(endpoint, sessions)

    assert error.error_class == "timeout"
    assert 0.6 <= seconds < 2


def test_dripping_chunks_meet_the_deadline(receiver, sessions):
    receiver.script = lambda request: (200, {}, receiver.drip(b"x" * 1000, 0.02))
    endpoint = Endpoint("crm", receiver.url, timeout=(1, 1), deadline=0.4)

    error, seconds = elapsed_failure(endpoint, sessions)

    assert error.error_class == "timeout"
    assert 0.4 <= seconds < 2


def test_dripping_headers_meet_the_deadline(receiver, sessions):
    lines = b"HTTP/1.1 200 OK\r\n" + b"X-Long: 1\r\n" * 90
    receiver.script = lambda request: Raw(receiver.drip(lines, 0.01))
    endpoint = Endpoint("crm", receiver.url, timeout=(1, 1), deadline=0.4)

    error, seconds = elapsed_failure(endpoint, sessions)

    assert error.error_class == "timeout"
    assert 0.4 <= seconds < 2


def test_large_body_may_take_longer_than_connecting(sessions):
    """A server that reads slowly: 8 MB fit into no buffer of the system."""
    body = b"x" * 8_000_000
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            with connection:
                waiting.wait(0.5)
                got = 0
                while got < len(body):
                    got += len(connection.recv(1 << 20))
                connection.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")

        waiting = threading.Event()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        response = call(Endpoint("crm", url, timeout=(0.2, 5), deadline=10), sessions, body=body)
        thread.join(10)

    assert response.status_code == 204


# What goes wrong.


def test_refused_connection_is_told(sessions):
    with socket.create_server(("127.0.0.1", 0)) as free:
        host = f"127.0.0.1:{free.getsockname()[1]}"

    error = failure(Endpoint("crm", f"http://{host}/s3cret"), sessions)

    assert error.error_class == "connect"
    assert str(error) == f"{host} could not be reached: Connection refused."


def test_unknown_name_is_told(sessions, monkeypatch):
    def unknown(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)

    error = failure(Endpoint("crm", "http://crm.invalid/s3cret"), sessions)

    assert error.error_class == "dns"
    assert str(error) == (
        "The name of crm.invalid could not be resolved: Name or service not known."
    )


def test_tls_with_a_server_that_speaks_none_is_told(receiver, sessions):
    endpoint = Endpoint("crm", receiver.url.replace("http:", "https:"))

    error = failure(endpoint, sessions)

    assert error.error_class == "tls"
    assert str(error).startswith(f"No secure connection to {endpoint.host}: ")


def test_unusable_proxy_is_told(receiver, sessions):
    with socket.create_server(("127.0.0.1", 0)) as free:
        proxy = f"http://127.0.0.1:{free.getsockname()[1]}"

    error = failure(Endpoint("crm", receiver.url, proxies={"http": proxy}), sessions)

    assert error.error_class == "connect"
    assert "proxy" in str(error)
    assert receiver.requests == []


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
        b"",
    ],
)
def test_garbage_for_an_answer_is_a_protocol_error(receiver, sessions, answer):
    receiver.script = lambda request: Raw([answer])

    assert failure(Endpoint("crm", receiver.url), sessions).error_class == "protocol"


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        (f"http://{'a' * 64}.example/s3cret", {}),
        ("http://crm.example.com/s3cret", {"X-Name": "s3cret€"}),
        ("http://crm.example.com/s3cret", {"X-Name": "s3cret\r\nX: y"}),
    ],
)
def test_call_that_can_not_be_written_is_told_without_its_secrets(sessions, url, headers):
    endpoint = Endpoint("crm", url)

    error = failure(endpoint, sessions, headers=headers)

    assert error.error_class in ("protocol", "dns", "connect")
    assert endpoint.host in str(error)
    assert "s3cret" not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__


def test_auth_that_can_not_be_imported_is_told(sessions):
    endpoint = Endpoint("crm", "http://127.0.0.1:1/", auth=Asked("tests.nowhere.auth"))

    error = failure(endpoint, sessions)

    assert error.error_class == "credentials"
    assert str(error) == (
        'SIGNAL_DISPATCH_ENDPOINTS["crm"]["AUTH"] can\'t be imported (ModuleNotFoundError).'
    )


# Connections that are kept.


def test_connection_is_kept_alive(receiver, sessions):
    endpoint = Endpoint("crm", receiver.url)

    for _ in range(3):
        call(endpoint, sessions)

    assert [request.connection for request in receiver.requests] == [1, 1, 1]


def test_kept_connection_that_is_closed_without_an_answer_is_tried_once_more(receiver, sessions):
    receiver.play((200, {}, b"{}"), HANG_UP, (201, {}, b"{}"))
    endpoint = Endpoint("crm", receiver.url)
    call(endpoint, sessions)

    response = call(endpoint, sessions, body=b"second")

    assert response.status_code == 201
    assert [request.connection for request in receiver.requests] == [1, 1, 2]
    assert [request.body for request in receiver.requests[1:]] == [b"second", b"second"]


def test_once_more_is_once(receiver, sessions):
    receiver.play((200, {}, b"{}"), HANG_UP)
    endpoint = Endpoint("crm", receiver.url)
    call(endpoint, sessions)

    assert failure(endpoint, sessions).error_class == "protocol"
    assert len(receiver.requests) == 3


def test_fresh_connection_that_is_closed_without_an_answer_is_not_tried_again(receiver, sessions):
    receiver.play(HANG_UP)

    assert failure(Endpoint("crm", receiver.url), sessions).error_class == "protocol"
    assert len(receiver.requests) == 1


def test_kept_connection_that_breaks_within_an_answer_is_not_tried_again(receiver, sessions):
    receiver.play((200, {}, b"{}"), Raw([b"HTTP/1."]))
    endpoint = Endpoint("crm", receiver.url)
    call(endpoint, sessions)

    failure(endpoint, sessions)

    assert len(receiver.requests) == 2


@pytest.mark.parametrize(("method", "body"), [("POST", b"{}"), ("GET", b"")])
def test_reset_of_a_kept_connection_counts_as_silence(sessions, method, body):
    """A reset takes the place of the orderly end where the server never read the request."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        arrived = []

        def serve():
            for last in (False, True):
                connection, _ = listening.accept()
                with connection:
                    arrived.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
                    if not last:
                        arrived.append(connection.recv(1))
                        connection.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        endpoint = Endpoint("crm", f"http://127.0.0.1:{listening.getsockname()[1]}/")
        statuses = [
            call(endpoint, sessions, method=method, body=body).status_code for _ in range(2)
        ]
        thread.join(10)

    assert statuses == [204, 204]
    assert [len(data) > 1 for data in arrived] == [True, False, True]


def test_connection_made_anew_by_the_pool_counts_as_fresh(receiver, sessions):
    receiver.play((200, {"Connection": "close"}, b"{}"), HANG_UP)
    endpoint = Endpoint("crm", receiver.url)
    call(endpoint, sessions)

    failure(endpoint, sessions)

    assert len(receiver.requests) == 2


# Under test.


def test_guard_is_asked_before_anything_is_touched(receiver, sessions, monkeypatch):
    asked = []

    def refuse(endpoint, session):
        asked.append(endpoint.alias)
        raise EndpointNotMocked("Mock it.")

    monkeypatch.setattr(sender, "network_guard", refuse)

    with pytest.raises(EndpointNotMocked, match="Mock it"):
        call(Endpoint("crm", receiver.url), sessions)
    assert asked == ["crm"]
    assert receiver.requests == []


@responses.activate
def test_mocked_endpoint_answers(sessions):
    responses.put("https://crm.example.com/orders", json={"id": 1}, status=201)

    response = call(Endpoint("crm", "https://crm.example.com/"), sessions, method="PUT")

    assert (response.status_code, response.json()) == (201, {"id": 1})


@responses.activate
def test_mock_that_says_not_mocked_is_heard(sessions):
    def refuse(request):
        raise EndpointNotMocked("Mock it.")

    responses.add_callback("POST", "https://crm.example.com/orders", callback=refuse)

    with pytest.raises(EndpointNotMocked, match="Mock it"):
        call(Endpoint("crm", "https://crm.example.com/"), sessions)


@responses.activate
@pytest.mark.parametrize(
    ("error", "error_class"),
    [
        (requests.ConnectionError("down"), "connect"),
        (requests.Timeout("slow"), "timeout"),
        (ConnectionResetError(104, "Connection reset by peer"), "protocol"),
    ],
)
def test_errors_that_a_mock_raises_are_told(sessions, error, error_class):
    responses.post("https://crm.example.com/orders", body=error)

    told = failure(Endpoint("crm", "https://crm.example.com/"), sessions)

    assert told.error_class == error_class
