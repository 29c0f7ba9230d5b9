"""A process of a site, to be run and killed: ``python -m tests.acceptance.process URL WHAT``.

``WHAT`` is ``save N``, ``save-and-die N``, ``serve``, one of ``works.WORKS``, or a management
command. It uses the databases of the test run that started it. Read from the environment:
``DECLARED`` (one of ``works.DECLARATIONS``), ``LEASE_SECONDS``, ``REPAIR_SECONDS`` between two
looks for lanes that wait behind nothing, ``RETRY_SECONDS`` before each of ``ATTEMPTS``,
``DEADLINE`` and ``SEND_LIMIT`` of the endpoint, ``ENDPOINT`` (JSON of more of its keys),
``MORE_ENDPOINTS`` (JSON of entries like it by alias), ``ENDPOINTS`` beside it (JSON),
``BACKEND``, below ``signal_dispatch.backends``, and ``BACKEND_OPTIONS`` (JSON), and ``HOST``, the
name by which its host goes. ``BROKER`` and ``QUEUE`` give it the Celery app of
``tests.acceptance.celery_app``; ``RQ`` and ``QUEUE`` let RQ's workers run its tasks, else those of
django-tasks-db do.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from tests.acceptance.soak import patience

#: Seconds that a dead process's lease lasts here.
LEASE_SECONDS = 4


def start(url: str, *what: str, **environment: str) -> "subprocess.Popen[str]":
    """Start such a process; whoever starts it waits for it or kills it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.process", url, *what],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(url: str, *what: str, timeout: float = 60, **environment: str) -> str:
    """Run such a process to its end, and return what it printed."""
    process = start(url, *what, **environment)
    try:
        output, _none = process.communicate(timeout=patience(timeout))
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"{what} did not end: {process.communicate()[0]}") from None
    if process.returncode not in (0, -signal.SIGKILL):
        raise AssertionError(f"{what} ended with {process.returncode}: {output}")
    return output


def main(url: str, what: str, *arguments: str) -> None:
    """Be that process."""
    set_up(url)
    from django.core.management import call_command

    from tests.acceptance.works import WORKS
    from tests.shop.models import Order

    if what in WORKS:
        WORKS[what](*arguments)
    elif what.startswith("save"):
        for number in range(int(arguments[0])):
            Order.objects.create(number=f"{arguments[1]}-{number}")
        if what == "save-and-die":
            os.kill(os.getpid(), signal.SIGKILL)
    elif what == "serve":
        serve()
    else:
        call_command(what, *arguments)


def set_up(url: str) -> None:
    """Load Django with the endpoint ``crm`` at the URL, and tell it of orders."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django
    from django.conf import settings

    settings.SIGNAL_DISPATCH_LEASE_SECONDS = float(os.environ.get("LEASE_SECONDS", LEASE_SECONDS))
    deadline = float(os.environ.get("DEADLINE", "1"))
    crm = {
        "URL": url,
        "DEADLINE": deadline,
        "TIMEOUT": deadline,
        "SEND_LIMIT": float(os.environ.get("SEND_LIMIT", "300")),
        "RETRY": {"delays": delays()},
        # Most of the tests let far more attempts fail than it would stand.
        "BREAKER": None,
    }
    crm |= json.loads(os.environ.get("ENDPOINT", "{}"))
    more = json.loads(os.environ.get("MORE_ENDPOINTS", "{}"))
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": crm,
        **{alias: crm | entry for alias, entry in more.items()},
        **json.loads(os.environ.get("ENDPOINTS", "{}")),
    }
    backend = os.environ.get("BACKEND", "threads.ThreadsBackend")
    options = json.loads(os.environ.get("BACKEND_OPTIONS", "{}"))
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {"BACKEND": f"signal_dispatch.backends.{backend}", "OPTIONS": options}
    }
    if "HOST" in os.environ:
        socket.gethostname = lambda: os.environ["HOST"]
    if "RQ" in os.environ:
        use_rq(settings, os.environ["RQ"], os.environ["QUEUE"])
    if "BROKER" in os.environ:
        import tests.acceptance.celery_app  # noqa: F401 - as the __init__.py of a site does
    django.setup()
    from signal_dispatch import sweeping
    from tests.acceptance.works import DECLARATIONS

    if "REPAIR_SECONDS" in os.environ:
        sweeping.REPAIR_SECONDS = float(os.environ["REPAIR_SECONDS"])
    DECLARATIONS[os.environ.get("DECLARED", "told")]()


def use_rq(settings: Any, url: str, queue: str) -> None:
    """Let RQ run the tasks, through one queue of the Redis at the URL."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django_rq", "django_tasks_rq"]
    settings.RQ_QUEUES = {queue: {"URL": url}}
    settings.TASKS = {"default": {"BACKEND": "django_tasks_rq.RQBackend", "QUEUES": [queue]}}


def delays() -> list[float]:
    """Return how long to wait before each attempt."""
    if "RETRY_SECONDS" in os.environ:
        again = int(os.environ.get("ATTEMPTS", "50")) - 1
        return [0, *[float(os.environ["RETRY_SECONDS"])] * again]
    return [0, 0.5, 0.5, 1, 1]


def serve() -> None:
    """Serve a first request, which saves nothing, and live until killed."""
    from django.core.signals import request_started

    request_started.send(sender=None)
    print("serving", flush=True)  # noqa: T201 - read by the test
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
