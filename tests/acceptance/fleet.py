"""Processes of one site that are stopped, killed and replaced, and what their remote took."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.acceptance.soak import patience
from tests.receiver import Answer, Received, Receiver
from tests.settings import DATABASE
from tests.waiting import eventually

#: The mark of tests whose processes share the databases of the run.
over_processes = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Another process can't see an in-memory database.",
    ),
]

#: Deliveries that one process may have in flight: ``MAX_CONCURRENCY`` of one endpoint.
IN_FLIGHT = 8
#: What one kill may double: what was in flight, and the answers not recorded yet.
DOUBLED_BY_A_KILL = IN_FLIGHT + 32

Process = subprocess.Popen[bytes]


class Fleet:
    """Start processes of ``tests.acceptance.process``, and end all of them at the end.

    What they print goes to files in the directory, and into the message where one ends badly.
    """

    def __init__(self, url: str, directory: Path, **environment: str) -> None:
        self._url = url
        self._directory = directory
        self._environment = environment
        self._outputs: dict[int, Path] = {}
        self._running: list[Process] = []
        #: How many were killed, by the test or by themselves.
        self.kills = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._running:
            self.kill_group(process)
            process.wait()

    def start(self, *what: str, crash: str = "", **environment: str) -> Process:
        """Start a process; ``crash`` arms a crash point in it."""
        if crash:
            environment["SIGNAL_DISPATCH_CRASH"] = crash
        return self.run("tests.acceptance.process", self._url, *what, **environment)

    def run(self, module: str, *arguments: str, **environment: str) -> Process:
        """Start a process that runs a module; with what it starts it is a group of its own."""
        path = self._directory / f"{len(self._outputs)}-{module}.txt"
        with path.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=os.environ | {"SITE_URL": self._url} | self._environment | environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._outputs[process.pid] = path
        self._running.append(process)
        return process

    def worker(self, *options: str, crash: str = "", **environment: str) -> Process:
        """Start a worker process."""
        return self.start("dispatch_worker", *options, crash=crash, **environment)

    def output(self, process: Process) -> str:
        """Return what a process printed so far."""
        return self._outputs[process.pid].read_text()

    def kill(self, process: Process) -> None:
        """Kill a process, unless it has ended by itself."""
        process.kill()
        self.join(process)

    def kill_group(self, process: Process) -> None:
        """Kill a process and all that it started, as when its machine goes down."""
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def join(self, process: Process, timeout: float = 120) -> bool:
        """Wait until a process ends, well or by a kill; return whether it was killed."""
        try:
            code = process.wait(patience(timeout))
        except subprocess.TimeoutExpired:
            raise AssertionError(f"It did not end: {self.output(process)}") from None
        self._running.remove(process)
        assert code in (0, -signal.SIGKILL), f"It ended with {code}: {self.output(process)}"
        self.kills += code != 0
        return code != 0

    def storm(self, crew: Sequence[Sequence[str]], remote: "Remote", kills: int) -> None:
        """Run the crew, kill one after the other at random and replace it, until all savers end.

        Between two kills the remote takes a few calls, so that each one hits somebody at work.
        """
        chance = random.Random(815)
        running = [self.start(*what) for what in crew]
        savers = [place for place, what in enumerate(crew) if what[0] != "dispatch_worker"]

        def saved() -> bool:
            return all(running[place].poll() is not None for place in savers)

        while self.kills < kills and not saved():
            enough = len(remote.taken) + chance.randrange(5, 30)
            eventually(lambda: len(remote.taken) >= enough or saved(), 60)  # noqa: B023
            place = chance.randrange(len(crew))
            self.kill(running[place])
            running[place] = self.start(*crew[place])
        for place in savers:
            self.join(running[place])
        await_calm(60)
        for place in set(range(len(crew))) - set(savers):
            self.end(running[place])

    def end(self, process: Process) -> None:
        """End a worker as an operator would, once it listens."""
        eventually(lambda: "Sending for" in self.output(process), 60)
        process.terminate()
        assert not self.join(process), "a worker must end by itself when told to"

    def await_pause(self, process: Process, timeout: float = 30) -> None:
        """Wait until a process stopped itself at a crash point."""
        flags = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
        state = eventually(lambda: os.waitid(os.P_PID, process.pid, flags), timeout)
        assert state.si_status == signal.SIGSTOP, self.output(process)

    def wake(self, process: Process) -> None:
        """Let a process go on that stopped itself."""
        process.send_signal(signal.SIGCONT)


class Remote:
    """A remote that answers 500 by chance, and keeps what it took, in order of arrival.

    Plays the receiver's script. ``failing``: the share of calls that it refuses.
    """

    def __init__(self, receiver: Receiver, *, failing: float = 0.0) -> None:
        self._failing = failing
        self._chance = random.Random(4711)
        self._lock = threading.Lock()
        #: Number of the order, its total, and the idempotency key of each call that got a 200.
        self.taken: list[tuple[str, int, str]] = []
        self.refused = 0
        receiver.script = self

    def __call__(self, request: Received) -> Answer:
        """Take the call, or refuse it."""
        with self._lock:
            if self._chance.random() < self._failing:
                self.refused += 1
                return 500, {}, b""
            told = request.json
            number, total = told["number"], int(float(told.get("total", 0)))
            self.taken.append((number, total, request.headers["Idempotency-Key"]))
        return 200, {}, json.dumps({"id": f"c-{number}"}).encode()

    @property
    def duplicates(self) -> int:
        """How many calls were taken again."""
        return len(self.taken) - len({key for _number, _total, key in self.taken})

    @property
    def keys(self) -> dict[tuple[str, int], set[str]]:
        """The idempotency keys that came with each change: one each, whatever happens."""
        keys = defaultdict(set)
        for number, total, key in self.taken:
            keys[number, total].add(key)
        return keys

    @property
    def firsts(self) -> dict[str, list[int]]:
        """For each order its totals, in the order in which each was taken for the first time."""
        firsts: dict[str, list[int]] = defaultdict(list)
        for number, total, _key in self.taken:
            if total not in firsts[number]:
                firsts[number].append(total)
        return firsts


def states() -> dict[str, int]:
    """Count the deliveries by their state."""
    from django.db.models import Count

    from signal_dispatch.models import Delivery

    rows: Any = Delivery.objects.order_by().values_list("state").annotate(Count("pk"))
    return dict(rows)


def await_calm(timeout: float) -> None:
    """Wait until no delivery has to be made any more; ten times as long in the long form."""
    from signal_dispatch.models import Delivery

    timeout = patience(timeout)
    try:
        eventually(lambda: not Delivery.objects.unfinished().exists(), timeout)
    except AssertionError:
        rows = Delivery.objects.unfinished().values("id", "state", "held_by", "lane", "reason")
        raise AssertionError(f"Stuck after {timeout} s: {list(rows[:20])}") from None


def make_orders(count: int) -> None:
    """Make orders that nobody is told of, their totals zero."""
    from tests.shop.models import Order

    Order.objects.bulk_create([Order(number=f"o-{number}") for number in range(count)])


def make_lanes(count: int, length: int) -> None:
    """Make lanes of deliveries of ``shop.Told`` whose heads are due; their totals are steps."""
    from signal_dispatch.models import State
    from tests.deliveries import delivery

    for number in range(count):
        for step in range(length):
            waiting = {"state": State.WAITING, "available_at": None} if step else {}
            body = b'{"number": "o-%d", "total": %d}' % (number, step)
            delivery(object_pk=number, lane=f"lane-{number}", body=body, **waiting)


def committed() -> set[tuple[str, int]]:
    """Return all changes that ``works.change`` committed: number and total."""
    from tests.shop.models import Order

    totals = Order.objects.values_list("number", "total")
    return {(number, step + 1) for number, total in totals for step in range(int(total))}
