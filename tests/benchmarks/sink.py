"""A remote API in a process of its own, which notes when each call arrives.

``python -m tests.benchmarks.sink`` prints its port. Paths that begin with ``/_`` steer it:
``/_reset/DELAY`` forgets all calls and answers later ones after so many seconds,
``/_await/COUNT`` is answered once so many different paths were called, ``/_arrivals`` tells when
each was called first, in nanoseconds of the system's monotonic clock. Each of them tells what the
sink has used of the processors, in seconds.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from types import TracebackType
from typing import Any, Self

import requests

_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"


class Arrivals:
    """The calls so far, and who waits for how many."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.at: dict[str, int] = {}
        self.repeated = 0
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def reset(self, delay: float) -> None:
        """Forget the calls."""
        self.delay = delay
        self.repeated = 0
        self.at.clear()

    def note(self, path: str) -> None:
        """Take down that a path was called."""
        self.repeated += path in self.at
        self.at.setdefault(path, time.monotonic_ns())
        for count, reached in self._waiting:
            if len(self.at) >= count:
                reached.set()

    async def reach(self, count: int) -> None:
        """Wait for so many."""
        waiting = (count, asyncio.Event())
        self._waiting.append(waiting)
        if len(self.at) < count:
            await waiting[1].wait()
        self._waiting.remove(waiting)


class _Connection(asyncio.Protocol):
    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._tasks: set[asyncio.Task[None]] = set()

    def data_received(self, data: bytes) -> None:
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._read, 0, end)
            whole = end + 4 + int(length[1] if length else 0)
            if len(self._read) < whole:
                return
            path = self._read[:end].split(b" ", 2)[1].decode()
            self._read = self._read[whole:]
            self._serve(path)

    def _serve(self, path: str) -> None:
        if path.startswith("/_"):
            task = asyncio.ensure_future(self._steer(*path[2:].split("/")))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        self._arrivals.note(path)
        if self._arrivals.delay:
            asyncio.get_running_loop().call_later(self._arrivals.delay, self._answer)
        else:
            self._answer()

    def _answer(self, body: bytes = b'{"id": 1}') -> None:
        self._transport.write(_ANSWER % (len(body), body))

    async def _steer(self, what: str, argument: str = "") -> None:
        if what == "reset":
            self._arrivals.reset(float(argument))
        elif what == "await":
            await self._arrivals.reach(int(argument))
        told = {
            "at": self._arrivals.at if what == "arrivals" else {},
            "repeated": self._arrivals.repeated,
            "cpu": time.process_time(),
        }
        self._answer(json.dumps(told).encode())


class Sink:
    """Start one, and steer it from here; with a URL, steer one that runs."""

    def __init__(self, url: str = "") -> None:
        self.url = url
        self._process: subprocess.Popen[str] | None = None
        self._session = requests.Session()
        self._session.trust_env = False

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.benchmarks.sink"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{self._process.stdout.readline().strip()}/"
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        self._session.close()
        self._process.kill()
        self._process.communicate()

    def reset(self, delay: float = 0.0) -> None:
        """Forget all calls, and answer later ones after so many seconds."""
        self._ask(f"reset/{delay}", 10)

    def wait_for(self, count: int, seconds: float = 300) -> None:
        """Wait until so many different paths were called."""
        self._ask(f"await/{count}", seconds)

    def arrivals(self) -> dict[str, int]:
        """Return for each path when it was called first, in monotonic nanoseconds."""
        return dict(self._ask("arrivals", 10)["at"])

    def cpu_seconds(self) -> float:
        """Return what it has used of the processors so far."""
        return float(self._ask("cpu", 10)["cpu"])

    def _ask(self, what: str, seconds: float) -> dict[str, Any]:
        answer = self._session.get(f"{self.url}_{what}", timeout=seconds)
        answer.raise_for_status()
        return dict(answer.json())


async def serve() -> None:
    """Serve until killed."""
    arrivals = Arrivals()
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(arrivals), "127.0.0.1", 0, backlog=1000
    )
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - read by who started it
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
