import gzip
import io
import os
from types import SimpleNamespace

import pytest
import requests
from requests.adapters import BaseAdapter, HTTPAdapter

from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import SendError
from signal_dispatch.sessions import new_session
from tests.calling import call, elapsed_failure
from tests.once import ONCE

# The receiver is a real server.
pytestmark = [ONCE, pytest.mark.signal_dispatch_network]


def test_session_is_kept_for_equal_endpoints_and_made_anew_for_changed_ones(sessions):
    first = sessions.get(Endpoint("crm", "https://crm.example.com/"))

    assert sessions.get(Endpoint("crm", "https://crm.example.com/")) is first
    assert sessions.get(Endpoint("crm", "https://crm.example.com/", verify=False)) is not first


def test_session_is_made_anew_after_a_fork(sessions, monkeypatch):
    endpoint = Endpoint("crm", "https://crm.example.com/")
    first = sessions.get(endpoint)

    monkeypatch.setattr(os, "getpid", lambda: -1)

    assert sessions.get(endpoint) is not first


def test_only_the_sessions_that_were_used_last_are_kept(sessions, monkeypatch):
    monkeypatch.setattr("signal_dispatch.sessions.MOST_KEPT", 3)
    first, second, third, fourth = (
        Endpoint(f"tenant:{number}", "https://crm.example.com/") for number in range(4)
    )
    made = [sessions.get(endpoint) for endpoint in (first, second, third)]
    closed = []
    monkeypatch.setattr(requests.Session, "close", lambda self: closed.append(self) or None)
    sessions.get(first)
    sessions.get(fourth)

    assert closed == [made[1]]
    assert sessions.get(first) is made[0]
    assert sessions.get(second) is not made[1]


def test_closed_cache_can_be_used_again(receiver, sessions):
    endpoint = Endpoint("crm", receiver.url)
    call(endpoint, sessions)
    sessions.close()

    assert call(endpoint, sessions).status_code == 200
    assert [request.connection for request in receiver.requests] == [1, 2]


class OwnAdapter(HTTPAdapter):
    pass


def make_session():
    session = requests.Session()
    session.headers["X-Factory"] = "yes"
    session.mount("https://", OwnAdapter())
    return session


def test_factory_makes_the_session_and_keeps_its_adapters(receiver, sessions):
    endpoint = Endpoint("crm", receiver.url, session="tests.test_sessions.make_session")

    call(endpoint, sessions)

    assert receiver.requests[0].headers["X-Factory"] == "yes"
    assert isinstance(sessions.get(endpoint).get_adapter("https://x.example/"), OwnAdapter)


def make_session_with_an_adapter():
    session = requests.Session()
    session.mount("http://", OwnAdapter())
    return session


def test_deadline_holds_between_chunks_on_an_adapter_of_the_factory(receiver, sessions):
    receiver.script = lambda request: (200, {}, receiver.drip(b"x" * 1000, 0.02))
    factory = "tests.test_sessions.make_session_with_an_adapter"
    endpoint = Endpoint("crm", receiver.url, timeout=(1, 1), deadline=0.3, session=factory)

    error, seconds = elapsed_failure(endpoint, sessions)

    assert error.error_class == "timeout"
    assert 0.3 <= seconds < 2


@pytest.mark.parametrize("factory", ["make_session", "make_session_with_an_adapter"])
def test_adapters_of_the_factory_can_not_be_guarded(receiver, sessions, factory):
    endpoint = Endpoint(
        "crm",
        receiver.url,
        session=f"tests.test_sessions.{factory}",
        allow_private_addresses=False,
    )

    with pytest.raises(SendError, match=r'\["crm"\]\["SESSION"\] makes a session with adapters'):
        sessions.get(endpoint)


def test_one_session_for_guarded_and_other_endpoints_is_refused(monkeypatch, sessions):
    shared = requests.Session()
    monkeypatch.setattr("tests.test_sessions.make_session", lambda: shared)
    values = {"url": "http://127.0.0.1/", "session": "tests.test_sessions.make_session"}
    sessions.get(Endpoint("crm", **values))

    with pytest.raises(SendError, match="it must be a new session"):
        sessions.get(Endpoint("erp", **values, allow_private_addresses=False))


def test_socks_has_connections_of_its_own_kind(monkeypatch):
    made = SimpleNamespace(pool_classes_by_scheme="its own")
    monkeypatch.setattr("requests.adapters.SOCKSProxyManager", lambda *args, **kwargs: made)
    session = new_session(Endpoint("crm", "https://crm.example.com/"))

    manager = session.get_adapter("https://x.example/").proxy_manager_for("socks5h://127.0.0.1:1")

    assert manager.pool_classes_by_scheme == "its own"


def test_factory_that_fails_is_told(sessions):
    endpoint = Endpoint("crm", "https://crm.example.com/", session="tests.nowhere.make")

    with pytest.raises(SendError, match=r'\["SESSION"\] can\'t be imported'):
        sessions.get(endpoint)


def test_session_follows_the_endpoint():
    with new_session(
        Endpoint(
            "crm",
            "https://crm.example.com/",
            verify="/ca.pem",
            cert=("/c.pem", "/k.pem"),
            proxies={"https": "http://proxy.example:3128"},
        )
    ) as session:
        assert session.verify == "/ca.pem"
        assert session.cert == ("/c.pem", "/k.pem")
        assert session.proxies == {"https": "http://proxy.example:3128"}
        assert session.trust_env is False


def make_session_with_a_hook():
    session = requests.Session()
    session.hooks["response"].append(lambda answer, **kwargs: read_by_the_hook.append(answer.text))
    return session


read_by_the_hook = []


def test_hook_of_the_session_may_read_the_answer_first(receiver, sessions):
    receiver.reply(body=gzip.compress(b"x" * 500_000), headers={"Content-Encoding": "gzip"})
    factory = "tests.test_sessions.make_session_with_a_hook"
    endpoint = Endpoint("crm", receiver.url, session=factory, max_response_bytes=100_000)

    response = call(endpoint, sessions)

    assert (response.content, response.truncated) == (b"x" * 100_000, True)
    assert 100_000 < len(read_by_the_hook[0]) < 200_000, "the limit holds for the hook, too"


class PlainAdapter(BaseAdapter):
    """An adapter that knows nothing of urllib3, as one for files or for tests."""

    def send(self, request, **kwargs):
        answer = requests.Response()
        answer.status_code, answer.url = 200, request.url
        answer.raw = io.BytesIO(b"x" * 500)
        return answer

    def close(self):
        """There is nothing to close."""


def make_session_with_a_plain_adapter():
    session = requests.Session()
    session.mount("http://", PlainAdapter())
    return session


def test_adapter_of_the_factory_may_have_any_kind_of_answer(sessions):
    factory = "tests.test_sessions.make_session_with_a_plain_adapter"
    endpoint = Endpoint("crm", "http://x.example/", session=factory, max_response_bytes=100)

    response = call(endpoint, sessions)

    assert (response.content, response.truncated) == (b"x" * 100, True)


def test_only_what_can_be_decoded_within_bounds_is_asked_for(receiver, sessions, monkeypatch):
    monkeypatch.setattr(requests.utils, "DEFAULT_ACCEPT_ENCODING", "gzip, deflate, br, zstd")

    call(Endpoint("crm", receiver.url), sessions)

    assert receiver.requests[0].headers["Accept-Encoding"] == "gzip, deflate"


def make_session_for_plain_answers():
    session = requests.Session()
    session.headers["Accept-Encoding"] = "identity"
    return session


def test_factory_may_ask_for_another_encoding(receiver, sessions):
    factory = "tests.test_sessions.make_session_for_plain_answers"

    call(Endpoint("crm", receiver.url, session=factory), sessions)

    assert receiver.requests[0].headers["Accept-Encoding"] == "identity"


def test_session_in_a_users_own_hands_has_no_deadline(receiver, sessions):
    session = sessions.get(Endpoint("crm", receiver.url, deadline=0.001))

    assert session.post(receiver.url, data=b"x", timeout=5).status_code == 200
    assert session.post(receiver.url, data=b"x").status_code == 200
