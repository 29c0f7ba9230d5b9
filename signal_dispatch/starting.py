"""Start threads that inherit nothing from whoever starts them."""

import contextvars
import threading


def start_thread(thread: threading.Thread) -> bool:
    """Start a thread; False where none can be had any more."""
    try:
        # An empty context: what the starting request left in its own is not the thread's.
        contextvars.Context().run(thread.start)
    except RuntimeError:  # the interpreter is ending, or the system has no more threads
        return False
    return True
