"""Tell an engine which deliveries its workers are to send, from one thread of those who save."""

import threading
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from time import monotonic, sleep

from signal_dispatch import lanes, patience
from signal_dispatch.engines import Engine
from signal_dispatch.jobs import Place
from signal_dispatch.lookouts import GRACE_SECONDS, Lookout
from signal_dispatch.loops import Loop
from signal_dispatch.models import Delivery, State
from signal_dispatch.outboxes import do_all
from signal_dispatch.pruning import Pruner
from signal_dispatch.queueing import Recorded
from signal_dispatch.repairs import Repairer
from signal_dispatch.scopes import Scope
from signal_dispatch.starting import start_thread
from signal_dispatch.sweeping import REPAIR_SECONDS
from signal_dispatch.unpublished import Unpublished

#: Seconds between two questions of whoever drains.
PAUSE_SECONDS = 0.02


class Publisher(Loop):
    """Publish what was committed, and see to what is due that no message tells of.

    Whoever saves never waits for the engine. What can't be published stays in the table, and is
    found when the engine answers again. Safe to call from any thread; nothing runs until
    ``start()`` or the first delivery.
    """

    def __init__(
        self,
        scope: Callable[[], Scope],
        engine: Engine,
        *,
        batch_size: int = 10,
        sweep_seconds: float = 5.0,
    ) -> None:
        patience.connect()
        self._engine = engine
        self._lock = threading.Lock()
        super().__init__(threading.Condition(self._lock))
        self._counted = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._lookout = Lookout(
            scope, lambda using: engine.tell(using, []), self._free, sweep_seconds=sweep_seconds
        )
        self._pruner = Pruner(self._lookout.aliases)
        self._repairer = Repairer(self._lookout.aliases, REPAIR_SECONDS)
        self._unpublished = Unpublished(batch_size)
        self._stopping = False
        #: Whether it is asked how many deliveries are to be sent still, and the last answer.
        self._counting, self._count = False, 0

    # For any thread

    def start(self) -> bool:
        """Start the thread; False where none can be had any more."""
        with self._lock:
            return self._notified()

    def committed(self, recorded: Iterable[Recorded], using: str) -> None:
        """Take what was committed."""
        self._lookout.meet(using)
        self._lookout.expect(GRACE_SECONDS)
        with self._lock:
            for item in recorded:
                if item.delivery.state == State.WAITING:
                    self._unpublished.lanes.add((using, item.delivery.lane))
                elif item.delivery.state == State.PENDING:
                    self._hold(using, item.delivery)
            self._notified()

    def expect(self, using: str, seconds: float) -> None:
        """Look in so many seconds at the latest: something is due again then."""
        self._lookout.meet(using)
        self._lookout.expect(seconds)
        self.start()

    def look_for_repairs(self) -> None:
        """Look at once for work on many deliveries that a person asked for."""
        with self._lock:
            self._repairer.ask()
            self._notified()

    def drain(self, timeout: float) -> None:
        """Wait until nothing is to be published, and nothing due or being sent.

        Raises ``TimeoutError``: perhaps no worker of the engine runs.
        """
        until = monotonic() + timeout
        while not self._is_calm(until):
            if monotonic() > until:
                raise TimeoutError(f"After {timeout} s not all is sent: does a worker run?")
            sleep(PAUSE_SECONDS)

    def look_again(self) -> None:
        """Look at once, where the thread runs: an endpoint may be called again."""
        self._lookout.expect(0.0)
        with self._lock:
            self._work.notify()

    def finish(self, timeout: float) -> list[BaseException]:
        """Publish what is in hand, and end."""
        return self.stop(timeout)

    def stop(self, timeout: float) -> list[BaseException]:
        """Publish what is in hand, and end; an engine that hangs is not waited for longer."""
        with self._lock:
            self._stopping = True
            self._work.notify()
        if self._thread is not None:
            self._thread.join(timeout)
        return []

    def _is_calm(self, until: float) -> bool:
        """Have it counted what is to be sent still; False where nobody counts in time."""
        with self._lock:
            self._counting = self._notified()
            self._counted.wait_for(lambda: not self._counting, until - monotonic())
            counted = self._thread is not None and not self._counting
            return counted and not (self._count or self._unpublished)

    def _hold(self, using: str, delivery: Delivery) -> None:
        if not self._engine.rests:  # else it is found in the table
            self._unpublished.hold(Place(using, delivery.endpoint), delivery.pk)

    def _notified(self) -> bool:
        if self._thread is None and not self._stopping:
            name = "signal_dispatch-publisher"
            thread = threading.Thread(target=self.run, name=name, daemon=True)
            self._thread = thread if start_thread(thread) else None
        self._work.notify()
        return self._thread is not None

    # The thread

    def run(self) -> None:
        """Work until it is to end; then publish what is in hand."""
        try:
            super().run()
        finally:
            self._engine.close()

    def _is_ending(self) -> bool:
        return self._stopping

    def _next_at(self) -> float:
        if self._counting:
            return -inf
        return min(
            self._unpublished.ready_at,
            self._next_look_at(),
            self._pruner.next_at,
            self._repairer.next_at,
            self._engine.idle_at,
        )

    def _next_look_at(self) -> float:
        """Return when to look: while the engine rests it would only be told in vain."""
        return max(self._lookout.next_at, self._engine.open_at)

    def _step(self) -> None:
        now = monotonic()
        works: list[Callable[[], object]] = [self._release, self._publish]
        looking = self._next_look_at() <= now
        if looking:
            works.append(self._lookout.look)
        if looking or self._pruner.next_at <= now:  # at rest it costs no connection of its own
            works.append(self._pruner.prune)
        if looking or self._repairer.next_at <= now:
            works.append(self._repairer.repair)
        if self._engine.idle_at <= now:
            works.append(self._engine.close)
        if self._counting:
            works.append(self._count_open)
        do_all(works)

    def _end(self) -> None:
        self._publish()

    def _release(self) -> None:
        """Look into lanes whose head may be settled by now; what becomes free is published."""
        with self._lock:
            left = self._unpublished.take_lanes()

        def release(using: str) -> None:
            mine = {(alias, lane) for alias, lane in left if alias == using}
            released = lanes.release(using, {lane for _alias, lane in mine}, None)
            left.difference_update(mine)
            with self._lock:
                self._unpublished.block({(using, lane) for lane in released.blocked})
                for delivery in released.taken:
                    self._hold(using, delivery)

        try:
            do_all([partial(release, using) for using in {using for using, _lane in left}])
        finally:
            with self._lock:
                self._unpublished.lanes |= left

    def _publish(self) -> None:
        with self._lock:
            batches = self._unpublished.take()
        for using, ids in batches:
            self._engine.tell(using, ids)

    def _count_open(self) -> None:
        """Count on a connection that sees what is committed, and nothing else."""
        count = self._lookout.count_open()
        with self._lock:
            self._counting, self._count = False, count
            self._counted.notify_all()

    def _free(self, using: str, idle: Iterable[str]) -> None:
        with self._lock:
            self._unpublished.lanes |= {(using, lane) for lane in idle}
