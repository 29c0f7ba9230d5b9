"""What came of an attempt: the answer of the remote, and what it means for the delivery."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Self

import requests
from requests.exceptions import JSONDecodeError
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers

from signal_dispatch import redacting
from signal_dispatch.exceptions import SendError
from signal_dispatch.retries import parse_retry_after

# 408 Request Timeout, 425 Too Early, 429 Too Many Requests: refused now, not for ever.
_TRY_AGAIN = frozenset({408, 425, 429})

_SHOWN_CHARACTERS = 60

#: Every error class that the package gives, by which part of the way broke.
ERROR_CLASSES = (
    *("build", "loop"),  # when it was recorded
    *("gone", "resolver", "files", "credentials", "sdk"),  # before the call, or instead of it
    *("dns", "connect", "tls", "timeout", "protocol", "address"),  # no answer came
    *("status", "lost", "too_large", "handler"),  # with the answer
    "internal",
)


@dataclass(frozen=True, slots=True)
class Response:
    """What the remote answered, with the names of ``requests.Response``.

    ``content`` is the decoded body, cut at the endpoint's ``MAX_RESPONSE_BYTES`` where
    ``truncated`` says so. ``redact`` are the names that messages about it keep to themselves. Like
    its model it is judged by ``ok``; unlike it, it is always true.
    """

    status_code: int
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    url: str = ""
    reason: str = ""
    encoding: str | None = None
    elapsed: timedelta = timedelta()
    truncated: bool = False
    redact: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", CaseInsensitiveDict(self.headers))

    def __repr__(self) -> str:
        # Everything else may be, or hold, a secret: the URL, cookies, tokens that were given out.
        return f"<Response [{self.status_code}], {len(self.content)} bytes>"

    @classmethod
    def from_answer(
        cls,
        answer: requests.Response,
        content: bytes,
        *,
        truncated: bool,
        redact: tuple[str, ...] = (),
    ) -> Self:
        """Freeze what ``requests`` brought; ``content`` is what was read of its body."""
        return cls(
            status_code=answer.status_code,
            headers=answer.headers,
            content=content,
            url=answer.url,
            reason=answer.reason or "",
            encoding=answer.encoding,
            elapsed=answer.elapsed,
            truncated=truncated,
            redact=redact,
        )

    @classmethod
    def from_stored(
        cls,
        status_code: int,
        headers: Mapping[str, str],
        content: bytes,
        *,
        truncated: bool = False,
        url: str = "",
    ) -> Self:
        """Build the response again from what the outbox kept of it."""
        folded = CaseInsensitiveDict(headers)
        return cls(
            status_code=status_code,
            headers=folded,
            content=content,
            url=url,
            reason=_phrase(status_code),
            encoding=get_encoding_from_headers(folded),
            truncated=truncated,
        )

    @property
    def ok(self) -> bool:
        """Say whether the status is below 400, as ``requests`` does: redirects are ``ok``."""
        return self.status_code < 400

    @property
    def text(self) -> str:
        """Return the body as text; what its encoding can't tell becomes U+FFFD."""
        try:
            return self.content.decode(self.encoding or "utf-8", errors="replace")
        except (LookupError, ValueError):  # an encoding of the remote's own invention
            return self.content.decode("utf-8", errors="replace")

    def json(self, **kwargs: Any) -> Any:
        """Return the body read as JSON; the arguments are those of ``json.loads``.

        Raises ``requests.exceptions.JSONDecodeError``, a ``ValueError`` that says what came.
        """
        try:
            return json.loads(self.content, **kwargs)
        except (ValueError, RecursionError) as error:
            position = getattr(error, "pos", 0)
            text = redacting.shown(self.text, self.redact)
            raise JSONDecodeError(self._not_json(), text, position) from error

    def _not_json(self) -> str:
        kind = self.headers.get("Content-Type", "no content type")
        cut = f", cut at {len(self.content)} bytes" if self.truncated else ""
        start = redacting.shown(self.text, self.redact)[:_SHOWN_CHARACTERS]
        return f"The answer ({self.status_code}, {kind}{cut}) is not JSON; it begins {start!r}"


class OutcomeKind(StrEnum):
    """What an attempt can lead to."""

    # The remote has it.
    DELIVERED = "delivered"
    # Not now: the delivery waits for its next attempt.
    RETRY = "retry"
    # Never: the delivery is FAILED.
    REJECTED = "rejected"
    # The remote lost the object: the delivery is FAILED, and a new one creates it anew.
    RECREATE = "recreate"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt led to.

    ``after`` is the least number of seconds until the next attempt, ``reason`` one sentence for
    people, ``error_class`` one word for machines.
    """

    kind: OutcomeKind
    after: float | None = None
    reason: str = ""
    error_class: str = ""

    @classmethod
    def delivered(cls) -> Self:
        """Say that the remote has it."""
        return cls(OutcomeKind.DELIVERED)

    @classmethod
    def retry(cls, after: float | None = None, reason: str = "") -> Self:
        """Say that it should be tried again, no sooner than ``after`` seconds from now."""
        if after is not None and not (math.isfinite(after) and after >= 0):
            raise ValueError("'after' must be a finite number of seconds, not negative.")
        return cls(OutcomeKind.RETRY, after=after, reason=reason)

    @classmethod
    def rejected(cls, reason: str) -> Self:
        """Say that it will never be accepted, and why."""
        return cls(OutcomeKind.REJECTED, reason=reason)

    @classmethod
    def recreate(cls) -> Self:
        """Say that the remote lost the object: its id is forgotten, and CREATED is sent first.

        A second time in a row, the delivery is FAILED and nothing else happens.
        """
        return cls(OutcomeKind.RECREATE)


def outcome_of(response: Response, now: datetime) -> Outcome:
    """Judge an answer by its status: the table for APIs that mean what they say.

    2xx delivers; 408, 425, 429 and 5xx ask for a retry, no sooner than their ``Retry-After``;
    everything else is rejected, redirects too.
    """
    status = response.status_code
    if 200 <= status < 300:
        return Outcome.delivered()
    reason = f"It answered {f'{status} {_phrase(status)}'.strip()}."
    if is_try_again(status):
        after = parse_retry_after(response.headers.get("Retry-After"), now)
        return Outcome(OutcomeKind.RETRY, after, reason, "status")
    if 300 <= status < 400:
        reason += " Redirects are not followed."
    return Outcome(OutcomeKind.REJECTED, None, reason, "status")


def is_try_again(status: int) -> bool:
    """Say whether a status means "not now", rather than never."""
    return status in _TRY_AGAIN or 500 <= status < 600


def outcome_of_error(error: SendError) -> Outcome:
    """Judge a call that brought no answer: it is tried again, unless that would change nothing."""
    kind = OutcomeKind.REJECTED if error.for_good else OutcomeKind.RETRY
    return Outcome(kind, None, str(error), error.error_class)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
