"""Make one call over a real socket, without a delivery and its database."""

import time
from collections.abc import Mapping

import pytest

from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import SendError
from signal_dispatch.outcomes import Response
from signal_dispatch.sender import Call, send
from signal_dispatch.sessions import SessionCache

UID = "0b7c1d0e-0000-4000-8000-000000000001"


def call(
    endpoint: Endpoint,
    sessions: SessionCache,
    *,
    method: str = "POST",
    path: str = "orders",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"{}",
) -> Response:
    """Make a call, and return its answer."""
    return send(Call(method, path, headers or {}, body, UID), endpoint, sessions.get(endpoint))


def failure(
    endpoint: Endpoint,
    sessions: SessionCache,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"{}",
) -> SendError:
    """Make a call that brings no answer, and return why."""
    with pytest.raises(SendError) as caught:
        call(endpoint, sessions, headers=headers, body=body)
    return caught.value


def elapsed_failure(endpoint: Endpoint, sessions: SessionCache) -> tuple[SendError, float]:
    """Make a call that brings no answer; return why, and the seconds that it took."""
    began = time.monotonic()
    error = failure(endpoint, sessions)
    return error, time.monotonic() - began
