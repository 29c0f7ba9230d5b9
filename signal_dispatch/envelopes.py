"""The envelope of Standard Webhooks: what happened, when, and the payload."""

import re
from datetime import UTC, datetime
from typing import Any

from signal_dispatch.payloads import encode_json

# Standard Webhooks 1.0, "Event types": full stops between words of these.
_OTHERS = re.compile(r"[^a-z0-9_.]")


def wrap(payload: Any, model_name: str, event: str, at: datetime | None = None) -> dict[str, Any]:
    """Put a payload into the envelope; ``at`` is when the event happened, aware, or now."""
    moment = (at or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)
    timestamp = f"{moment.isoformat(timespec='microseconds')}Z"
    return {"type": type_of(model_name, event), "timestamp": timestamp, "data": payload}


def type_of(model_name: str, event: str) -> str:
    """Return an event's type, as ``order.created``; what may not stand in one becomes ``_``."""
    return _OTHERS.sub("_", f"{model_name}.{event}".lower())


def retyped(body: bytes, model_name: str, event: str, now: str) -> bytes:
    """Let an encoded envelope tell of another event; any other body stays as it is."""
    old, new = (_beginning(type_of(model_name, e)) for e in (event, now))
    return new + body.removeprefix(old) if body.startswith(old) else body


def _beginning(kind: str) -> bytes:
    # As encode_json() writes it. What follows is not read, so that not a byte of it changes.
    return encode_json({"type": kind})[0].removesuffix(b"}") + b',"timestamp":'
