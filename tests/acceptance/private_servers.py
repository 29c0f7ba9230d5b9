"""Database servers of one test's own, to be stopped and started as nobody may a shared one."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.services import POSTGRES
from tests.waiting import eventually


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _Server:
    """A directory and what runs in it, as the system's user ``postgres`` where we are root."""

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="signal_dispatch-"))
        if os.getuid() == 0:
            shutil.chown(self.directory, "postgres", "postgres")

    @property
    def environment(self) -> dict[str, str]:
        """Return what leads the clients of a process to this server."""
        return {"PGHOST": "127.0.0.1", "PGPORT": str(self.port)}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def run(self, *command: str) -> None:
        """Run a command to its end as the server's user."""
        done = subprocess.run(
            [*self.as_user(), *command],
            cwd=self.directory,
            stdout=(output := (self.directory / "output").open("a")),
            stderr=subprocess.STDOUT,
            check=False,
        )
        output.close()
        if done.returncode:
            raise AssertionError(f"{command}: {(self.directory / 'output').read_text()}")

    def as_user(self) -> list[str]:
        """Return how a command begins that must not run as root."""
        return ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []

    def answers(self) -> bool:
        """Say whether somebody listens."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class PrivatePostgres(_Server):
    """A cluster that lets everybody on this machine in; without fsync, but crashes are real."""

    def __init__(self) -> None:
        super().__init__()
        self._data = self.directory / "data"
        initdb = (_tool("initdb"), "--no-sync", "-A", "trust", "-U", POSTGRES["USER"])
        self.run(*initdb, "-D", str(self._data))
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(
                f"port = {self.port}\nlisten_addresses = '127.0.0.1'\n"
                f"unix_socket_directories = '{self.directory}'\n"
            )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = str(self.directory / "log")
        self.run(_tool("pg_ctl"), "-D", str(self._data), "-l", log, "-w", "start")

    def stop(self, how: str = "immediate") -> None:
        """Stop it: ``immediate`` as a crash would, ``fast`` by ending all connections."""
        self.run(_tool("pg_ctl"), "-D", str(self._data), "-m", how, "-w", "stop")


class PgBouncer(_Server):
    """A pooler in front of the shared server, that gives out connections for a transaction."""

    def __init__(self, pool_size: int) -> None:
        super().__init__()
        self._config = self.directory / "pgbouncer.ini"
        password = f" password={POSTGRES['PASSWORD']}" if POSTGRES["PASSWORD"] else ""
        self._config.write_text(
            f"[databases]\n"
            f"* = host={POSTGRES['HOST']} port={POSTGRES['PORT']}"
            f" user={POSTGRES['USER']}{password}\n"
            f"[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {pool_size}\n"
            # In turn, not the one that was used last: so whoever relies on a session is found out.
            f"server_round_robin = 1\n"
            f"max_client_conn = 200\npidfile = {self.directory}/pid\n"
        )
        self._config.chmod(0o644)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.directory / "log").open("a") as log:
            self._process = subprocess.Popen(
                [*self.as_user(), "/usr/sbin/pgbouncer", str(self._config)],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        _wait(self.answers, self.directory / "log")

    def stop(self) -> None:
        """End it and wait for its end."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)


def _wait(condition: Callable[[], bool], log: Path) -> None:
    try:
        eventually(condition, 20)
    except AssertionError:
        raise AssertionError(log.read_text()) from None


def _tool(name: str) -> str:
    """Return the path of a program of the server, which Debian keeps off the PATH."""
    found = shutil.which(name) or max(
        map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), default=""
    )
    if not found:
        raise AssertionError(f"{name} is missing: install PostgreSQL's server.")
    return found
