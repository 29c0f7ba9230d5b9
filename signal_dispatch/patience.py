"""Wait for SQLite's one writer, so that each of many gets its turn.

SQLite asks ever more seldom whether it may write, in the end ten times a second: who has waited
longest is the last to be served, and after the connection's timeout is told "database is locked".
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db.backends.signals import connection_created

from signal_dispatch.starting import is_own_thread

#: Seconds that our own threads wait, where settings say less: no person waits for them.
SECONDS = 30.0
# What Python's sqlite3 waits where settings don't say.
_DEFAULT_SECONDS = 5.0

# By process as well: a child of a fork must not wait for a thread that it does not have.
_turns: dict[tuple[int, str], threading.Lock] = {}


@contextmanager
def turn(connection: Any) -> Iterator[None]:
    """Let one thread of this process at a time ask whether it may begin to write."""
    lock = _turns.setdefault((os.getpid(), connection.alias), threading.Lock())
    configured = connection.settings_dict["OPTIONS"].get("timeout", _DEFAULT_SECONDS)
    # Whoever waits longer asks beside the others, and is told by the database what is wrong.
    taken = lock.acquire(timeout=SECONDS if is_own_thread() else configured)
    try:
        yield
    finally:
        if taken:
            lock.release()


def connect() -> None:
    """Heed new connections of our own threads from now on; twice is as good as once."""
    connection_created.connect(
        _be_patient, weak=False, dispatch_uid="signal_dispatch.patience.connect"
    )


def _be_patient(connection: Any, **kwargs: Any) -> None:
    if connection.vendor != "sqlite" or not is_own_thread():
        return
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        if cursor.fetchone()[0] < SECONDS * 1000:
            cursor.execute(f"PRAGMA busy_timeout = {SECONDS * 1000:.0f}")
