"""Note in a file what the processes of the site do: threads, connections, statements.

One line of JSON each, appended in one write, so that many processes share the file that
``SITE_NOTES`` names. The times are ``monotonic()`` stamps, which all processes share.
"""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.db.backends.signals import connection_created

_start = threading.Thread.start


def connect() -> None:
    """Begin, where a file is named."""
    if not os.environ.get("SITE_NOTES"):
        return
    threading.Thread.start = _noted_start  # type: ignore[method-assign]
    connection_created.connect(_noted_connection, dispatch_uid="site.notes")
    note("ready")


def note(what: str, **details: str) -> None:
    """Append a line."""
    line = {"pid": os.getpid(), "at": time.monotonic(), "what": what, **details}
    with Path(os.environ["SITE_NOTES"]).open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")


def read(path: Path, *what: str) -> list[dict[str, Any]]:
    """Return the lines of these kinds, in the order in which they came."""
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [line for line in lines if line["what"] in what]


def _noted_start(self: threading.Thread) -> None:
    note("thread", name=self.name)
    _start(self)


def _noted_connection(*, connection: Any, **kwargs: Any) -> None:
    note("connection", thread=threading.current_thread().name)
    if _noted_statement not in connection.execute_wrappers:
        connection.execute_wrappers.append(_noted_statement)


def _noted_statement(execute: Callable[..., Any], sql: str, *arguments: Any) -> Any:
    note("statement", thread=threading.current_thread().name, sql=sql)
    return execute(sql, *arguments)
