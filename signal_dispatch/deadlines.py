"""When the call that a thread makes must be over."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# On the monotonic clock.
_must_end: ContextVar[float] = ContextVar("signal_dispatch_must_end", default=math.inf)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let the calls that this thread makes within the block be over in so many seconds."""
    token = _must_end.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _must_end.reset(token)


def seconds_left(longest: float = math.inf) -> float:
    """Return the seconds until the deadline, ``longest`` at most; raises ``TimeoutError``."""
    left = min(_must_end.get() - time.monotonic(), longest)
    if left <= 0:
        raise TimeoutError("the deadline is over")
    return left


def has_deadline() -> bool:
    """Say whether this thread is within such a block."""
    return _must_end.get() < math.inf
