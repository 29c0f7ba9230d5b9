"""A process like those of ``process.py`` whose surroundings differ from the test run's.

``python -m tests.acceptance.changed URL WHAT``. Read from the environment: ``CLOCK_HOURS`` that
the host's clock is ahead, ``DATABASE_CHANGES`` (JSON that is merged into each database's
settings), ``SETTINGS`` (JSON of settings by name).
"""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.acceptance import process
from tests.acceptance.soak import patience


def start(
    url: str,
    *what: str,
    clock_hours: float = 0,
    databases: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    **environment: str,
) -> "subprocess.Popen[str]":
    """Start such a process; whoever starts it waits for it or kills it."""
    environment |= {
        "CLOCK_HOURS": str(clock_hours),
        "DATABASE_CHANGES": json.dumps(databases or {}),
        "SETTINGS": json.dumps(settings or {}),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.changed", url, *what],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(url: str, *what: str, timeout: float = 90, **changes: Any) -> str:
    """Run such a process to its end, and return what it printed."""
    return finish(start(url, *what, **changes), timeout)


def finish(started: "subprocess.Popen[str]", timeout: float = 90) -> str:
    """Wait for its end, well or by a kill, and return what it printed."""
    try:
        output, _none = started.communicate(timeout=patience(timeout))
    except subprocess.TimeoutExpired:
        started.kill()
        raise AssertionError(f"It did not end: {started.communicate()[0]}") from None
    if started.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(f"It ended with {started.returncode}: {output}")
    return output


def main(*arguments: str) -> None:
    """Be that process."""
    hours = float(os.environ["CLOCK_HOURS"])
    if hours:
        import time_machine

        time_machine.travel(datetime.now(UTC) + timedelta(hours=hours)).start()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    from django.conf import settings

    changes = json.loads(os.environ["DATABASE_CHANGES"])
    for database in settings.DATABASES.values():
        options = {**database.get("OPTIONS", {}), **changes.get("OPTIONS", {})}
        database.update({**changes, "OPTIONS": options})
    for name, value in json.loads(os.environ["SETTINGS"]).items():
        setattr(settings, name, value)
    process.main(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
