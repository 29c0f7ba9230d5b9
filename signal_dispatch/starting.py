"""Start threads that inherit nothing from whoever starts them."""

import contextvars
import threading
from weakref import WeakSet

_own: WeakSet[threading.Thread] = WeakSet()


def start_thread(thread: threading.Thread) -> bool:
    """Start a thread; False where none can be had any more."""
    _own.add(thread)
    try:
        # An empty context: what the starting request left in its own is not the thread's.
        contextvars.Context().run(thread.start)
    except RuntimeError:  # the interpreter is ending, or the system has no more threads
        return False
    return True


def is_own_thread() -> bool:
    """Say whether the running thread was started here, rather than by the site."""
    return threading.current_thread() in _own
