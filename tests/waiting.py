"""Wait on a condition, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout: float = 10.0) -> T:
    """Return the first true answer; raise ``AssertionError`` where none comes in time."""
    until = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > until:
            raise AssertionError(f"Not within {timeout} s: {condition}")
        time.sleep(0.02)
    return answer
