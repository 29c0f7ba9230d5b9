"""Answer an endpoint's calls in a test; the replies are made by the library ``responses``."""

import json as json_module
import math
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests
import responses
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import EndpointNotMocked

Query = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReceivedCall:
    """One call as the endpoint would have got it.

    ``path`` is relative to the endpoint's URL, and percent-encoded. ``query`` has a list for a
    name that came more than once.
    """

    method: str
    path: str
    query: Query
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body read as JSON; raises ``ValueError`` for anything else."""
        return json_module.loads(self.body)


@dataclass(slots=True)
class _Reply:
    """What is answered, to which calls (None: to any), and how often."""

    answer: responses.Response | Exception
    method: str | None
    path: str | None
    query: Query
    limit: float = 1
    #: Whether it is given again when everything else that fits is used up.
    repeats: bool = True
    used: int = 0

    def fits(self, call: ReceivedCall) -> bool:
        """Say whether it is meant for this call."""
        return (
            self.method in (None, call.method)
            and self.path in (None, call.path.lstrip("/"))
            and all(call.query.get(name) == value for name, value in self.query.items())
        )

    def __str__(self) -> str:
        target = _target(self.method or "any method", self.path, self.query)
        answer = self.answer
        given = answer.status if isinstance(answer, responses.Response) else repr(answer)
        return f"{target} -> {given}"


class EndpointMock:
    """Stand in for an endpoint: answer as told, and keep what came in ``calls``.

    Nothing of ``requests`` is patched. The calls are taken from the package's own sessions, so
    whatever else a test mocks with ``responses``, starts, stops or resets stays as it is.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.calls: list[ReceivedCall] = []
        self._alias = endpoint.alias
        self._replies: list[_Reply] = []
        self._lock = Lock()

    def __repr__(self) -> str:
        return f"<EndpointMock {self._alias!r}, {len(self.calls)} calls>"

    def reply(
        self,
        status: int = 200,
        *,
        json: Any = None,
        body: str | bytes = "",
        headers: Mapping[str, str] | None = None,
        method: str | None = None,
        path: str | None = None,
        query: Query | None = None,
    ) -> None:
        """Answer the next call that fits, and all later ones unless more replies are added.

        ``path`` is relative to the endpoint's URL, and percent-encoded. ``query`` names the
        parameters that a call must have; others are ignored.
        """
        if json is not None and body:
            raise ValueError("A reply has either 'json' or 'body'.")
        answer = responses.Response(
            method or "GET",
            "https://mocked",
            body=body,
            json=json,
            status=_status(status),
            headers=headers,
        )
        self._add(_Reply(answer, _method(method), _path(path), _query(query)))

    def fail(
        self,
        failure: int | Exception | type[Exception],
        times: int | None = None,
        *,
        method: str | None = None,
        path: str | None = None,
    ) -> None:
        """Answer with a status, or raise, for so many calls; None means for ever.

        An exception stands for a call without an answer, such as ``requests.Timeout``.
        """
        answer: responses.Response | Exception
        if times is not None and (type(times) is not int or times < 1):
            raise ValueError("'times' must be a whole number, at least 1, or None for ever.")
        if isinstance(failure, int) and not isinstance(failure, bool):
            status = _status(failure)
            if 200 <= status < 300:
                raise ValueError(f"{status} is no failure: say reply({status}).")
            answer = responses.Response(method or "GET", "https://mocked", status=status)
        elif isinstance(failure, type) and issubclass(failure, Exception):
            answer = failure()
        elif isinstance(failure, Exception):
            answer = failure
        else:
            raise TypeError(f"fail() takes a status or an exception, not {failure!r}.")
        limit = math.inf if times is None else times
        self._add(_Reply(answer, _method(method), _path(path), {}, limit, repeats=False))

    def take_over(self, endpoint: Endpoint, session: requests.Session) -> None:
        """Let a session bring its calls here, whatever adapters it had."""
        session.adapters.clear()
        stand_in = _StandIn(self, endpoint)
        session.mount("https://", stand_in)
        session.mount("http://", stand_in)

    def answer(self, call: ReceivedCall) -> responses.Response:
        """Choose the reply to a call. Raises what ``fail()`` was given, or EndpointNotMocked."""
        with self._lock:
            reply = self._choose(call)
            reply.used += 1
            self.calls.append(call)
        if isinstance(reply.answer, Exception):
            raise reply.answer
        return reply.answer

    def _add(self, reply: _Reply) -> None:
        with self._lock:
            self._replies.append(reply)

    def _choose(self, call: ReceivedCall) -> _Reply:
        fitting = [reply for reply in self._replies if reply.fits(call)]
        for reply in fitting:
            if reply.used < reply.limit:
                return reply
        repeated = [reply for reply in fitting if reply.repeats]
        if repeated:
            return repeated[-1]
        known = "; ".join(map(str, self._replies)) or "none"
        used_up = "every reply that fits is used up" if fitting else "no reply fits"
        raise EndpointNotMocked(
            f"Endpoint {self._alias!r} was called with "
            f"{_target(call.method, call.path, call.query)}, and {used_up}. Replies: {known}. "
            f"Add one: reply(200, method={call.method!r}, path={call.path!r})."
        )


class _StandIn(HTTPAdapter):
    """Carry the calls of a session to a mock."""

    def __init__(self, mock: EndpointMock, endpoint: Endpoint) -> None:
        super().__init__()
        self._mock = mock
        self._endpoint = endpoint

    def send(
        self, request: requests.PreparedRequest, *args: Any, **kwargs: Any
    ) -> requests.Response:
        """Answer a request without a connection."""
        answer = self._mock.answer(_received(request, self._endpoint))
        response: requests.Response = self.build_response(request, answer.get_response(request))
        return response


def _received(request: requests.PreparedRequest, endpoint: Endpoint) -> ReceivedCall:
    # The endpoint's URL is prepared too, so that both are normalised in the same way.
    base = requests.Request("GET", endpoint.url or "https://any").prepare().url or ""
    came = urlsplit(request.url or "")
    path = came.path.removeprefix(urlsplit(base).path.rstrip("/")).removeprefix("/")
    body = request.body or b""
    return ReceivedCall(
        method=request.method or "",
        path=path,
        query=_query(parse_qs(came.query, keep_blank_values=True)),
        headers=CaseInsensitiveDict(request.headers),
        body=body.encode() if isinstance(body, str) else body,
    )


def _status(status: Any) -> int:
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"A reply takes a status such as 201, not {status!r}.")
    if not 100 <= status <= 999:
        raise ValueError(f"A status has three digits, such as 201, and {status!r} has not.")
    return status


def _method(method: str | None) -> str | None:
    return method and method.upper()


def _path(path: str | None) -> str | None:
    if path is not None and "?" in path:
        raise ValueError(f"The path {path!r} has a query: give it as query={{...}}.")
    return path and path.lstrip("/")


def _query(query: Query | None) -> Query:
    """Return text for each name, and a list where there are several."""
    read: dict[str, Any] = {}
    for name, value in (query or {}).items():
        values = [str(v) for v in value] if isinstance(value, list | tuple) else [str(value)]
        read[name] = values[0] if len(values) == 1 else values
    return read


def _target(method: str, path: str | None, query: Query) -> str:
    shown = "any path" if path is None else path or "(no path)"
    return f"{method} {shown}" + (f"?{urlencode(query, doseq=True)}" if query else "")
