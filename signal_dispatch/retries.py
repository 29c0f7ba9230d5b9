"""When to try again: the schedule of attempts, and what a remote asks for in ``Retry-After``."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

_MINUTE = 60.0
_HOUR = 60 * _MINUTE

#: Seconds to wait before the first, second, ... attempt: a little over three days in all.
DEFAULT_DELAYS: tuple[float, ...] = (
    0.0,
    5.0,
    30.0,
    2 * _MINUTE,
    10 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)

#: The longest wait, in seconds, that a remote may ask for.
MAX_RETRY_AFTER = 24 * _HOUR


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Say how many attempts a delivery gets, and how long to wait before each.

    ``delays`` are the seconds before the first, second, ... attempt, so their number is the number
    of attempts. ``jitter`` (0 to 1) is the share by which a delay may grow; it never shrinks.
    Raises ``TypeError`` or ``ValueError`` for anything else.
    """

    delays: Sequence[float] = DEFAULT_DELAYS
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.delays, str | bytes) or not isinstance(self.delays, Sequence):
            raise TypeError("'delays' must be a list of seconds.")
        if not self.delays:
            raise ValueError("'delays' must hold at least one delay: that of the first attempt.")
        delays = tuple(_number(delay, "each of 'delays'") for delay in self.delays)
        if _number(self.jitter, "'jitter'") > 1:
            raise ValueError("'jitter' must be a share between 0 and 1.")
        object.__setattr__(self, "delays", delays)

    @classmethod
    def exponential(
        cls, attempts: int, first: float, factor: float, cap: float, *, jitter: float = 0.1
    ) -> Self:
        """Build a policy whose waits grow by ``factor`` and never exceed ``cap`` seconds.

        The first attempt is made at once, the second after ``first`` seconds.
        """
        if isinstance(attempts, bool) or not isinstance(attempts, int):
            raise TypeError("'attempts' must be a whole number.")
        if attempts < 1:
            raise ValueError("'attempts' must be at least 1.")
        delay, limit = _number(first, "'first'"), _number(cap, "'cap'")
        growth = _number(factor, "'factor'")
        delays = [0.0]
        for _ in range(attempts - 1):
            # Capped at each step, so that no number of attempts overflows a float.
            delay = min(delay, limit)
            delays.append(delay)
            delay *= growth
        return cls(delays=delays, jitter=jitter)

    @classmethod
    def from_setting(cls, value: Any) -> "RetryPolicy":
        """Read what stands in settings: a ``RetryPolicy``, or a dict of its arguments."""
        if isinstance(value, RetryPolicy):
            return value
        if not isinstance(value, Mapping):
            raise TypeError("must be a RetryPolicy or a dict of its arguments.")
        known = [field.name for field in fields(cls)]
        unknown = [str(name) for name in value if name not in known]
        if unknown:
            raise ValueError(f"does not know {', '.join(unknown)}: it takes {', '.join(known)}.")
        return cls(**value)

    @property
    def attempts(self) -> int:
        """Count the attempts that a delivery gets."""
        return len(self.delays)

    def delay_before(
        self, attempt: int, *, random: Callable[[], float] = random.random
    ) -> float | None:
        """Return the seconds to wait before an attempt, counted from 1; ``None``: there is none.

        ``random`` gives numbers from 0 to 1.
        """
        if not 1 <= attempt <= len(self.delays):
            return None
        return self.delays[attempt - 1] * (1 + self.jitter * random())


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a ``Retry-After`` header as seconds from ``now``, which must be aware.

    Understands whole seconds and dates (RFC 9110, 10.2.3). A date that is over means 0; what is
    neither gives ``None``. The result never exceeds ``MAX_RETRY_AFTER``.
    """
    text = (value or "").strip(" \t")
    if text.isascii() and text.isdigit():
        # As a float, which thousands of digits make infinite: int() refuses so many.
        return min(float(text), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(text)
        # The header's dates are GMT, also where the form (that of C's asctime) does not say so.
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number.")
    try:
        number = float(value)
    except OverflowError:  # an int can be larger than any float
        number = math.inf
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{name} must be finite and not negative.")
    return number
