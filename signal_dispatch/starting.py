"""Start threads that inherit nothing from whoever starts them."""

import contextvars
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

_own: WeakSet[threading.Thread] = WeakSet()


def start_thread(thread: threading.Thread) -> bool:
    """Start a thread; False where none can be had any more."""
    _own.add(thread)
    try:
        with _undisturbed():
            # An empty context: what the starting request left in its own is not the thread's.
            contextvars.Context().run(thread.start)
    except RuntimeError:  # the interpreter is ending, or the system has no more threads
        return False
    return True


def is_own_thread() -> bool:
    """Say whether the running thread was started here, rather than by the site."""
    return threading.current_thread() in _own


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Leave signals to other threads than those that are begun here, where uWSGI runs.

    Its handlers end the process at once, in whatever thread the signal comes to. In one of ours,
    which held a lock, the exit handlers waited for that lock for ever.
    """
    if "uwsgi" not in sys.modules:
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
