"""Sign what is sent, and verify what is received, as Standard Webhooks 1.0.0 says (``v1``)."""

import hmac
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Final

from signal_dispatch import readers
from signal_dispatch.exceptions import SignatureError

ID: Final = "webhook-id"
TIMESTAMP: Final = "webhook-timestamp"
SIGNATURE: Final = "webhook-signature"


def sign(secrets: Sequence[str], *, id: str, timestamp: int, body: bytes) -> dict[str, str]:  # noqa: A002 - the specification's word
    """Return the three headers; of several secrets each signs, in their order.

    ``id`` names the message and stays the same when it is sent again, ``timestamp`` is the Unix
    time of this attempt in seconds, ``body`` what goes over the wire. Raises ``ValueError`` for a
    secret that is not "whsec_" and base64.
    """
    content = _content(id, str(timestamp), body)
    signatures = " ".join(f"v1,{_signature(secret, content)}" for secret in secrets)
    return {ID: id, TIMESTAMP: str(timestamp), SIGNATURE: signatures}


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secrets: Sequence[str],
    *,
    tolerance: float = 300,
    now: float | None = None,
) -> None:
    """Accept what a webhook brought, or raise ``SignatureError``, which says why not.

    ``body`` are the bytes as they came, not parsed and written again. One signature that fits one
    of the secrets is enough; those of unknown versions are passed over. ``tolerance`` is how many
    seconds the timestamp may lie in the past or the future of ``now`` (the current time). Remember
    each ``webhook-id`` for at least as long, and take no message twice. Raises ``ValueError`` for
    secrets that can't be used: that is no fault of the sender.
    """
    came = {name.lower(): value for name, value in headers.items()}
    for name in (ID, TIMESTAMP, SIGNATURE):
        if not came.get(name):
            raise SignatureError(f"The header {name} is missing.")
    _check_time(came[TIMESTAMP], tolerance, time.time() if now is None else now)
    if not _fits(came[SIGNATURE], _expected(secrets, _content(came[ID], came[TIMESTAMP], body))):
        raise SignatureError(f"No signature in {SIGNATURE} fits.")


def _content(id: str, timestamp: str, body: bytes) -> bytes:  # noqa: A002 - as above
    if "." in id:  # the parts could be cut elsewhere, and mean something else
        raise SignatureError(f"The header {ID} holds a full stop.")
    return f"{id}.{timestamp}.".encode(errors="replace") + body


def _signature(secret: str, content: bytes) -> str:
    return b64encode(hmac.digest(readers.secret(secret), content, "sha256")).decode()


def _check_time(timestamp: str, tolerance: float, now: float) -> None:
    # What is no number of seconds, or one of the year 31,000, int() need not see.
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise SignatureError(f"The header {TIMESTAMP} is no Unix time in seconds.")
    age = now - int(timestamp)
    if abs(age) > tolerance:
        side = "past" if age > 0 else "future"
        raise SignatureError(
            f"The header {TIMESTAMP} lies {abs(age):.0f} s in the {side}, "
            f"more than the {tolerance:g} s that are tolerated."
        )


def _expected(secrets: Sequence[str], content: bytes) -> list[bytes]:
    if isinstance(secrets, str) or not secrets:
        raise ValueError("'secrets' must be a list of secrets, and not empty.")
    return [_signature(secret, content).encode() for secret in secrets]


def _fits(header: str, expected: list[bytes]) -> bool:
    items = [item.partition(",") for item in header.split(" ")]
    given = [text.encode(errors="replace") for version, _, text in items if version == "v1"]
    # All are compared, whatever was found before: the time it takes tells nothing.
    return sum(hmac.compare_digest(one, other) for one in given for other in expected) > 0
