"""What the backends have in common whose deliveries the workers of another engine send."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from signal_dispatch import draining, lanes, readers
from signal_dispatch.backends.threaded import (
    ThreadedBackend,
    threads_can_run_or_warn,
)
from signal_dispatch.engines import Engine
from signal_dispatch.models import State
from signal_dispatch.publishing import Publisher
from signal_dispatch.queueing import Recorded


class PublishedBackend(ThreadedBackend[Publisher]):
    """Base of the backends that publish the ids of what is committed.

    ``batch_size``: the deliveries that one message names at most. ``sweep_seconds``: the longest
    sleep of a process between two looks while anything is scheduled. ``drain_seconds``: how long
    the process publishes on when it ends.

    The rows stay the truth: a message that is lost or comes twice does no harm.
    """

    made_at_start = True
    options: Mapping[str, Callable[[Any], Any]] = {
        "batch_size": readers.count,
        "sweep_seconds": readers.seconds,
        "drain_seconds": readers.seconds,
    }

    def make(self) -> Publisher:
        """Return the publisher."""
        return Publisher(self.scope, Engine(self.publish, self.disconnect), **self._options)

    def publish(self, using: str, ids: Sequence[int]) -> None:
        """Hand one message to the engine, from a thread of ours; without ids: look what is due.

        A worker of the engine calls ``take()`` with the same arguments.
        """
        raise NotImplementedError

    def disconnect(self) -> None:
        """Close what ``publish()`` keeps open."""

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Let the publisher tell of it; under test nobody is told, as with worker processes."""
        if self._under_test():
            waiting = {r.delivery.lane for r in recorded if r.delivery.state == State.WAITING}
            if waiting:
                lanes.release(using, waiting, None)
        elif threads_can_run_or_warn():
            self._current().committed(recorded, using)

    def take(self, using: str, ids: Sequence[int]) -> None:
        """Send what a message tells of, in the worker that got it."""
        again = draining.drain(self.scope(), using, ids)
        if again is not None and threads_can_run_or_warn():
            self._current().expect(using, again)

    def drain(self, timeout: float) -> None:
        """Wait until nothing is due; workers of the engine have to run. Raises ``TimeoutError``."""
        if not self._under_test():
            super().drain(timeout)

    def _under_test(self) -> bool:
        from signal_dispatch.backends import backends

        return backends.under_test
