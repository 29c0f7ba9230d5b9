"""The demo's two processes: started with fresh data, waited for, ended whatever happens."""

import fcntl
import os
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import TypeVar

from demo_site import settings

FoundT = TypeVar("FoundT")

ROOT = settings.BASE_DIR.parent
# The admin's user, name and password alike.
DEMO_USER = "admin"


class DemoFailed(Exception):
    """Something did not go as the demo says; the message says what."""


@dataclass(frozen=True)
class Servers:
    """The running shop and CRM, by address."""

    shop_url: str
    crm_url: str
    control_url: str
    processes: dict[str, subprocess.Popen[bytes]]

    def wait_until(
        self, what: str, condition: Callable[[], FoundT | None], seconds: float = 20
    ) -> FoundT:
        """Return the condition's first true value. Raises ``DemoFailed`` when time is up."""
        end = time.monotonic() + seconds
        while True:
            self.require_alive()
            found = condition()
            if found:
                return found
            if time.monotonic() > end:
                raise DemoFailed(f"Within {seconds:.0f} seconds this did not happen: {what}.")
            time.sleep(0.05)

    def require_alive(self) -> None:
        """Raise ``DemoFailed`` with a process's last words if it has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                code = process.returncode
                raise DemoFailed(f"The {name} ended by itself with code {code}. {_tail(name)}")


@contextmanager
def running() -> Iterator[Servers]:
    """Start shop and CRM with empty data, and end both on the way out.

    The ports are those of ``SHOP_PORT`` and ``CRM_PORT`` (8000, 8001), or any others if these are
    taken or 0. What the processes print stands in ``shop.log`` and ``crm.log`` beside the data.
    """
    settings.VAR_DIR.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_only_one())
        shop, crm, control = free_ports(
            int(os.environ.get("SHOP_PORT") or 8000), int(os.environ.get("CRM_PORT") or 8001), 0
        )
        crm_url, control_url = f"http://127.0.0.1:{crm}/", f"http://127.0.0.1:{control}/"
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "demo_site.settings",
            "CRM_URL": crm_url,
            "CRM_CONTROL_URL": control_url,
            "CRM_SECRET": f"whsec_{b64encode(token_bytes(32)).decode()}",
            "DEMO_VAR": str(settings.VAR_DIR),
            "PYTHONUNBUFFERED": "1",
        }
        _make_database(environment)
        processes = {
            "CRM": ["demo_site.crm", "--port", str(crm), "--control-port", str(control)],
            "shop": ["demo_site.manage", "runserver", "--noreload", f"127.0.0.1:{shop}"],
        }
        started = {
            name: stack.enter_context(_process(name, arguments, environment))
            for name, arguments in processes.items()
        }
        yield Servers(f"http://127.0.0.1:{shop}/", crm_url, control_url, started)


def free_ports(*preferred: int) -> list[int]:
    """Return a free port of 127.0.0.1 for each preferred one: that one where possible."""
    with ExitStack() as stack:
        return [stack.enter_context(_bound(port)).getsockname()[1] for port in preferred]


def _bound(port: int) -> socket.socket:
    holder = socket.socket()
    # A port whose last connections still fade away is free.
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind(("127.0.0.1", port))
    except OSError:
        holder.bind(("127.0.0.1", 0))
    return holder


@contextmanager
def _only_one() -> Iterator[None]:
    """Refuse a second demo on the same data, which would take them away from the first."""
    with (settings.VAR_DIR / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DemoFailed(
                f"Another demo uses {settings.VAR_DIR}. End it, or set DEMO_VAR to a directory."
            ) from error
        yield


def _make_database(environment: dict[str, str]) -> None:
    for old in settings.VAR_DIR.glob("db.sqlite3*"):
        old.unlink()
    _manage(environment, "migrate", "--verbosity", "0")
    _manage(
        {**environment, "DJANGO_SUPERUSER_PASSWORD": DEMO_USER},
        *("createsuperuser", "--noinput", "--verbosity", "0"),
        *("--username", DEMO_USER, "--email", "admin@example.com"),
    )


def _manage(environment: dict[str, str], *arguments: str) -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "demo_site.manage", *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoFailed(f"manage.py {arguments[0]} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def _process(
    name: str, arguments: list[str], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    with _log(name).open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tour, which ends the others in order
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _log(name: str) -> Path:
    return settings.VAR_DIR / f"{name.lower()}.log"


def _tail(name: str) -> str:
    path = _log(name)
    lines = path.read_text(errors="replace").splitlines()[-15:]
    return "\n".join([f"The end of {path}:", *lines])
