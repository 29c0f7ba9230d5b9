"""Adapters of ``requests`` whose connections keep to a deadline, and to public addresses."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from signal_dispatch.addresses import is_public
from signal_dispatch.deadlines import has_deadline
from signal_dispatch.decoding import content_of
from signal_dispatch.exceptions import SendError
from signal_dispatch.resolving import literal
from signal_dispatch.wire import GUARDED_POOLS, NOT_PUBLIC, POOLS

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class Adapter(HTTPAdapter):
    """Make connections that keep to the deadline; for http and https, and through proxies.

    ``limit`` is the number of bytes of an answer that are wanted.
    """

    _pools: Mapping[str, Any] = POOLS

    def __init__(self, limit: int, **kwargs: Any) -> None:
        self._limit = limit
        self._last: tuple[Any, Any] = (None, None)
        super().__init__(**kwargs)

    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """Bound the content for whoever reads it first: an AUTH that answers a challenge."""
        answer: requests.Response = super().build_response(req, resp)
        if has_deadline():
            bounded = partial(content_of, answer, self._limit)
            answer.iter_content = lambda *args, **kwargs: bounded()  # type: ignore[method-assign]
        return answer

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Let connections be ours."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        """Return the connections to the request's host; as a rule those of the call before."""
        key = (request.url.split("/", 3)[:3], verify, cert)
        known, found = self._last
        if proxies or key != known:
            found = super().get_connection_with_tls_context(request, verify, proxies, cert)
            if not proxies:
                self._last = key, found
        return found

    def close(self) -> None:
        """Close the connections; the next call makes new ones."""
        self._last = (None, None)
        super().close()

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Let connections through a proxy be ours, except for SOCKS, which has its own kind."""
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self._pools
        return manager


class GuardedAdapter(Adapter):
    """Make connections to public addresses only, and on some ports only."""

    _pools: Mapping[str, Any] = GUARDED_POOLS

    def __init__(self, limit: int, ports: Collection[int], **kwargs: Any) -> None:
        self._ports = ports
        super().__init__(limit, **kwargs)

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Refuse what no look-up of a name could make good; raises ``SendError``."""
        parts = urlsplit(request.url)
        host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
        if port not in self._ports:
            sentence = f"Port {port} of {host} is not in PORTS of the endpoint's settings."
            raise SendError("address", sentence, for_good=True)
        if not all(is_public(sockaddr[0]) for _, sockaddr in literal(host, port)):
            raise SendError("address", NOT_PUBLIC.format(host), for_good=True)
        return super().send(request, *args, **kwargs)
