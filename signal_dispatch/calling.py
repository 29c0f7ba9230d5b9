"""Make the call of one attempt: over HTTP with its files, or by the site's own ``send()``."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import PurePath
from traceback import walk_tb
from typing import Any

import requests
from django.db import InterfaceError, OperationalError

from signal_dispatch import payloads, sender, uploads
from signal_dispatch.concluding import Case
from signal_dispatch.declarations import BODILESS_METHODS
from signal_dispatch.endpoints import endpoints
from signal_dispatch.exceptions import (
    EndpointNotMocked,
    PayloadError,
    SendError,
    SignalDispatchError,
)
from signal_dispatch.models import Delivery
from signal_dispatch.outcomes import Outcome, OutcomeKind, Response
from signal_dispatch.registry import registry

#: Error classes of attempts that the site's own code could not make.
FILES, SDK = "files", "sdk"


def call(case: Case, session: requests.Session) -> Response | Outcome:
    """Make the call and return what it brought. Raises ``SendError``, ``EndpointNotMocked``."""
    if case.dispatch.overrides("send"):
        return _made_by_send(case, session)
    delivery, endpoint = case.delivery, case.endpoint
    if not endpoint.url:
        raise SendError(
            "connect", f"{endpoint.setting('URL')} is missing: add it, or override send()."
        )
    made = call_for(delivery)
    if case.dispatch.overrides("get_files") and delivery.method not in BODILESS_METHODS:
        headers, body = _with_files(case, made.headers, made.body)
        made = replace(made, headers=headers, body=body)
    return sender.send(made, endpoint, session)


def call_for(delivery: Delivery) -> sender.Call:
    """Return the call that a delivery stores, without its files and what its endpoint adds."""
    headers = dict(delivery.headers)
    if delivery.trace and not any(name.lower() == "traceparent" for name in headers):
        headers["traceparent"] = delivery.trace
    return sender.Call(
        method=delivery.method,
        path=delivery.path,
        headers=headers,
        body=bytes(delivery.body),
        uid=str(delivery.uid),
    )


def send_limit_of(delivery: Delivery) -> float | None:
    """Return for how many seconds a lease is kept for ``send()``; None where it is not used."""
    dispatch = registry.find(delivery.dispatch, delivery.model)
    endpoint = endpoints.find(delivery.endpoint)
    if dispatch is None or endpoint is None or not dispatch.overrides("send"):
        return None
    return endpoint.send_limit


# Files that go along


def _with_files(
    case: Case, headers: Mapping[str, str], body: bytes
) -> tuple[dict[str, str], bytes]:
    """Return headers and body of the call as multipart; the same ones where it has no files."""
    content_type = payloads.content_type_of(headers)
    made: tuple[bytes, str] | None = None

    def work() -> None:
        nonlocal made
        files = case.dispatch.get_files(case.delivery)
        if files is not None:
            fields = payloads.fields(body, content_type)
            made = uploads.encode(fields, files, case.delivery.uid.hex)

    try:
        case.hook(work)()
    except (OperationalError, InterfaceError):  # the database is unwell, not the code
        raise
    except Exception as error:
        if case.raising:
            raise
        raise SendError(FILES, _told(case, "get_files", error)) from None
    if made is None:
        return dict(headers), body
    others = {name: value for name, value in headers.items() if name.lower() != "content-type"}
    return others | {"Content-Type": made[1]}, made[0]


# Calls of the site's own


def _made_by_send(case: Case, session: requests.Session) -> Response | Outcome:
    if sender.network_guard is not None:
        sender.network_guard(case.endpoint, session)
    returned: Any = None

    def work() -> None:
        nonlocal returned
        returned = _whole(case.dispatch.send(case.delivery, session))

    try:
        case.hook(work)()
    except Exception as error:  # noqa: BLE001 - whatever a vendor's code raises
        unmocked = [e for e in _chain(error) if isinstance(e, EndpointNotMocked)]
        if unmocked:
            raise unmocked[0] from None
        # Not chained: the text of a vendor's error may hold a key, and so may its cause's.
        raise SendError(SDK, _told(case, "send", error)) from None
    try:
        return _read(returned, case.endpoint.max_response_bytes)
    except PayloadError:
        kind = type(returned).__name__
        reason = (
            f"{case.dispatch.name}: send() returned {kind}, which is no Response, Outcome or JSON "
            f"value. The call is not made again."
        )
        return Outcome(OutcomeKind.REJECTED, reason=reason, error_class="handler")


def _whole(returned: Any) -> Any:
    """Read an answer of ``requests`` to its end, which may be a call over the network still."""
    if not isinstance(returned, requests.Response):
        return returned
    return Response.from_answer(returned, returned.content, truncated=False)


def _read(returned: Any, limit: int) -> Response | Outcome:
    """Return what ``send()`` returned as one of the two, no longer than an answer may be."""
    if isinstance(returned, Outcome):
        return returned
    response = _response_of(returned)
    if len(response.content) <= limit:
        return response
    return replace(response, content=response.content[:limit], truncated=True)


def _response_of(returned: Any) -> Response:
    if isinstance(returned, Response):
        return returned
    if returned is None:
        return Response(204)
    content, content_type = payloads.encode_json(returned)
    return Response(200, {"Content-Type": content_type}, content)


# What hooks raise


def _told(case: Case, hook: str, error: Exception) -> str:
    """Say what a hook raised and where; not in others' words, which may hold a secret."""
    place = f"{case.dispatch.name}: {hook}()"
    if isinstance(error, SignalDispatchError):
        return f"{place}: {error}"
    if isinstance(error.__cause__, SystemExit):
        return f"{place} called sys.exit()."
    kind = type(error)
    # Of the operating system's own errors alone: requests' are OSErrors too.
    words = error.strerror if isinstance(error, OSError) and kind.__module__ == "builtins" else None
    where = _where(getattr(type(case.dispatch), hook), error)
    return f"{place} raised {kind.__name__}{f': {words}' if words else ''}{where}."


def _where(hook: Callable[..., Any], error: Exception) -> str:
    """Return the last line of the hook's own file that the error came through."""
    file = getattr(getattr(hook, "__code__", None), "co_filename", None)
    trace = walk_tb(error.__traceback__)
    lines = [line for frame, line in trace if frame.f_code.co_filename == file]
    return f" ({PurePath(file).name}, line {lines[-1]})" if file and lines else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
