"""The sessions of ``requests`` that calls are made with, as an endpoint's settings say."""

import os
from http.cookiejar import DefaultCookiePolicy

import requests
from requests import utils
from requests.adapters import HTTPAdapter

from signal_dispatch import decoding
from signal_dispatch.adapters import Adapter, GuardedAdapter
from signal_dispatch.entries import Endpoint
from signal_dispatch.failures import explain

_OWN_ADAPTERS = (
    "makes a session with adapters of its own. ALLOW_PRIVATE_ADDRESSES is False, and whom they "
    "connect to can't be seen from here: it must be a new session with the adapters of requests."
)


#: How many sessions a thread keeps, with a connection each: an entry with a RESOLVER may stand for
#: thousands of endpoints.
MOST_KEPT = 32


class SessionCache:
    """The sessions of one thread, one for each of the endpoints that it called last.

    So that connections are kept alive.
    """

    def __init__(self) -> None:
        self._sessions: dict[tuple[int, str], tuple[Endpoint, requests.Session]] = {}

    def get(self, endpoint: Endpoint) -> requests.Session:
        """Return its session, a new one after a change or a fork; raises ``SendError``."""
        # Two processes that write to one connection would garble both their calls.
        key = (os.getpid(), endpoint.alias)
        if key in self._sessions:
            known, session = self._sessions.pop(key)
            if known == endpoint:
                self._sessions[key] = known, session  # the last one again
                return session
            session.close()
        try:
            session = new_session(endpoint)
        except Exception as error:  # noqa: BLE001 - a factory is anybody's code
            raise explain(error, endpoint.host) from None
        self._sessions[key] = (endpoint, session)
        while len(self._sessions) > MOST_KEPT:
            _endpoint, oldest = self._sessions.pop(next(iter(self._sessions)))
            oldest.close()
        return session

    def close(self) -> None:
        """Close every connection; the cache may be used again."""
        for _, session in self._sessions.values():
            session.close()
        self._sessions.clear()


def new_session(endpoint: Endpoint) -> requests.Session:
    """Make a session that follows the endpoint's settings: no environment, cookies, redirects.

    A factory's own adapters stay; on them the deadline is judged between chunks only. The guard of
    addresses knows nothing of them either: where it is on, they are refused (``InvalidEndpoint``).
    """
    factory = endpoint.load("SESSION") if endpoint.session else requests.Session
    session: requests.Session = factory()
    session.trust_env = False
    if session.headers.get("Accept-Encoding") == utils.DEFAULT_ACCEPT_ENCODING:
        # That of requests asks for all that happens to be installed, Brotli for one.
        session.headers["Accept-Encoding"] = decoding.ACCEPTED
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # Even where it follows no redirect, requests reads its whole body to prepare the next call.
    session.get_redirect_target = lambda resp: None  # type: ignore[method-assign]
    session.verify = session.verify if endpoint.verify is True else endpoint.verify
    session.cert = endpoint.cert or session.cert
    session.proxies.update(endpoint.proxies)
    for prefix, adapter in list(session.adapters.items()):
        if type(adapter) is HTTPAdapter:
            session.mount(prefix, _adapter_for(endpoint))
        elif not endpoint.allow_private_addresses:
            raise endpoint.problem("SESSION", _OWN_ADAPTERS)
    return session


def _adapter_for(endpoint: Endpoint) -> Adapter:
    limit = endpoint.max_response_bytes
    if endpoint.allow_private_addresses:
        return Adapter(limit, pool_connections=2, pool_maxsize=1)
    return GuardedAdapter(limit, endpoint.ports, pool_connections=2, pool_maxsize=1)
