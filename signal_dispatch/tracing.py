"""Which trace a change belongs to: that of the request that saves (W3C Trace Context)."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary

from asgiref.sync import SyncToAsync
from django.core.signals import request_finished, request_started

#: Set where a tracing library is plugged in: returns the ``traceparent`` of its current span, or
#: nothing. What it says goes first.
current_span: Callable[[], str] | None = None

# "traceparent" in version 00; a later version may have more to say, after a dash.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_UID = "signal_dispatch.tracing"

_trace: ContextVar[str] = ContextVar("signal_dispatch_trace", default="")
# Django runs receivers of an asynchronous request in a task of their own, whose context ends with
# it. What the whole request shares is the object by which asgiref chooses its thread.
_of_requests: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def current() -> str:
    """Return the ``traceparent`` of what is running, or ``""``."""
    found = current_span() if current_span is not None else ""
    request = _request()
    return found or _trace.get() or ("" if request is None else _of_requests.get(request, ""))


@contextmanager
def traced(traceparent: str) -> Iterator[None]:
    """Let changes inside belong to a trace: for tasks and scripts that were given one.

    What is no ``traceparent`` is none: then they belong to no trace.
    """
    token = _trace.set(read(traceparent))
    try:
        yield
    finally:
        _trace.reset(token)


def read(traceparent: str) -> str:
    """Return a ``traceparent`` in version 00; ``""`` for what is none, as the standard asks."""
    found = _TRACEPARENT.fullmatch(traceparent.strip(" \t"))
    if found is None:
        return ""
    version, trace_id, parent_id, flags, more = found.groups()
    unsound = version == "ff" or (version == "00" and more)
    if unsound or not int(trace_id, 16) or not int(parent_id, 16):
        return ""
    if version != "00":  # of its flags, only "sampled" is known here
        flags = f"{int(flags, 16) & 1:02x}"
    return f"00-{trace_id}-{parent_id}-{flags}"


def connect() -> None:
    """Heed the header of each request from now on; twice is as good as once."""
    request_started.connect(_started, weak=False, dispatch_uid=_UID)
    request_finished.connect(_finished, weak=False, dispatch_uid=_UID)


def disconnect() -> None:
    """Leave requests alone again."""
    request_started.disconnect(dispatch_uid=_UID)
    request_finished.disconnect(dispatch_uid=_UID)


def _started(**kwargs: Any) -> None:
    if "scope" in kwargs:
        given = [v.decode("latin-1") for n, v in kwargs["scope"]["headers"] if n == b"traceparent"]
    else:
        given = [(kwargs.get("environ") or {}).get("HTTP_TRACEPARENT", "")]
    # Of several nobody knows which one is true.
    _note(read(given[0]) if len(given) == 1 else "")


def _finished(**kwargs: Any) -> None:
    _note("")


def _note(trace: str) -> None:
    request = _request()
    if request is None:
        _trace.set(trace)
    elif trace:
        _of_requests[request] = trace
    else:
        _of_requests.pop(request, None)


def _request() -> Any:
    """Return what stands for the asynchronous request that is served; None outside of one."""
    return SyncToAsync.thread_sensitive_context.get(None)
