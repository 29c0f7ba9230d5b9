"""Let a command end in order when it is told to."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def until_told() -> Iterator[list[int]]:
    """Yield a list that the first SIGTERM or SIGINT is put into.

    The second one ends the process at once. A thread that is not the first one hears of none.
    """
    told: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return

    def note(received: int, frame: Any) -> None:
        # Nothing here takes a lock: the signal may come while the main thread holds it.
        signal.signal(received, signal.SIG_DFL)
        told.append(received)

    before = {number: signal.signal(number, note) for number in _SIGNALS}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
