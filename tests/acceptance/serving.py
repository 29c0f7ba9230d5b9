"""Run the site under a real server, as a process of its own on a loopback port."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.acceptance.site import notes
from tests.run import ROOT
from tests.waiting import eventually

_WSGI = "tests.acceptance.site.wsgi:application"
_ASGI = "tests.acceptance.site.asgi:application"
_GUNICORN = ("gunicorn", "--no-control-socket", "-b", "127.0.0.1:{port}", "-w", "2")
_PATCHING = str(ROOT / "tests/acceptance/site/gevent_first.py")
_UVICORN = ("uvicorn", "--lifespan", "off", "--port", "{port}")
_UWSGI = ("uwsgi", "--http-socket", "127.0.0.1:{port}", "--master", "--processes", "2")
_UWSGI += ("--die-on-term", "--need-app", "--virtualenv", sys.prefix, "--module", _WSGI)
_RUNSERVER = ("django", "runserver", "127.0.0.1:{port}")

#: The command line of each server, by the name that tests know it by.
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "gunicorn": (*_GUNICORN, _WSGI),
    "gunicorn --preload": (*_GUNICORN, "--preload", _WSGI),
    "gunicorn gthread": (*_GUNICORN, "-k", "gthread", "--threads", "4", _WSGI),
    "gunicorn gevent": (*_GUNICORN, "-k", "gevent", _WSGI),
    "gunicorn gevent --preload": (*_GUNICORN, "-k", "gevent", "--preload", "-c", _PATCHING, _WSGI),
    "uvicorn": (*_UVICORN, _ASGI),
    "uvicorn --workers 2": (*_UVICORN, "--workers", "2", _ASGI),
    "daphne": ("daphne", "-b", "127.0.0.1", "-p", "{port}", _ASGI),
    "uwsgi --enable-threads": (*_UWSGI, "--enable-threads"),
    "uwsgi --enable-threads --lazy-apps": (*_UWSGI, "--enable-threads", "--lazy-apps"),
    "uwsgi": _UWSGI,
    "runserver": _RUNSERVER,
    "runserver --noreload": (*_RUNSERVER, "--noreload"),
}

#: Those whose two workers load the site each for itself. A worker that is told to end before it
#: has loaded shows a traceback of its own (uWSGI), or none.
LOADING_TWICE = [
    "gunicorn",
    "gunicorn gthread",
    "gunicorn gevent",
    "uvicorn --workers 2",
    "uwsgi --enable-threads --lazy-apps",
]


class Server:
    """A server that runs; ``pids`` are the processes that have loaded the site."""

    def __init__(self, name: str, crm: str, more: Mapping[str, str]) -> None:
        self._loading = 2 if name in LOADING_TWICE else 1
        self._files = tempfile.TemporaryDirectory()
        self.notes = Path(self._files.name, "notes")
        self._output = Path(self._files.name, "output")
        self.port = _free_port()
        program, *arguments = (part.format(port=self.port) for part in COMMANDS[name])
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*_program(program), *arguments],
                cwd=ROOT,
                env=os.environ | environment(crm, self.notes) | more,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that its workers can be ended with it
            )

    @property
    def output(self) -> str:
        """Return what it printed so far."""
        return self._output.read_text(errors="replace")

    @property
    def pids(self) -> set[int]:
        """Return the processes that have loaded the site."""
        return {line["pid"] for line in notes.read(self.notes, "ready")}

    def noted(self, *what: str) -> list[dict[str, Any]]:
        """Return what its processes noted, by kind."""
        return notes.read(self.notes, *what)

    def get(self, path: str) -> dict[str, Any]:
        """Ask for a page; waits until the server listens."""
        url = f"http://127.0.0.1:{self.port}/{path}"
        eventually(self._listens, 60)
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError as error:
            raise AssertionError(f"{error}: {self.output}") from error

    def terminate(self) -> None:
        """Send SIGTERM, as whoever stops a service does, once each worker has loaded the site."""
        eventually(lambda: len(self.noted("loaded")) >= self._loading, 60)
        self.process.send_signal(signal.SIGTERM)

    def end(self, timeout: float = 40) -> str:
        """Wait until it has ended, and return what it printed."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"It hangs: {self.output}") from None
        eventually(lambda: not self._group_lives(), timeout)
        return self.output

    def clear_away(self) -> None:
        """Kill what is left of it."""
        if self._group_lives():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        self._files.cleanup()

    def _listens(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"It ended with {self.process.returncode}: {self.output}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _group_lives(self) -> bool:
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return False
        return True


@contextmanager
def serving(
    name: str, crm: str, *, options: Mapping[str, Any] | None = None, **more: str
) -> Iterator[Server]:
    """Start a server by its name; kill what is left of it at the end.

    ``options`` are the backend's, ``more`` is for its environment.
    """
    server = Server(name, crm, {"SITE_OPTIONS": json.dumps(options or {})} | more)
    try:
        yield server
    finally:
        server.clear_away()


def environment(crm: str, notes_path: Path) -> dict[str, str]:
    """Return what the environment of a process of the site holds beside the tests' own."""
    return {
        "DJANGO_SETTINGS_MODULE": "tests.acceptance.site.settings",
        "SITE_CRM": crm,
        "SITE_NOTES": str(notes_path),
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }


def uwsgi() -> Path | None:
    """Return where uWSGI is, if it is installed."""
    path = Path(sys.executable).with_name("uwsgi")
    return path if path.exists() else None


def _program(name: str) -> list[str]:
    return [str(uwsgi())] if name == "uwsgi" else [sys.executable, "-m", name]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
