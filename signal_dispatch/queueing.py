"""What a process has in hand: bounded, fair between endpoints, known to be leased."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from time import monotonic

from signal_dispatch.jobs import Job, Line, Place
from signal_dispatch.models import Delivery
from signal_dispatch.replacing import Legacy
from signal_dispatch.scopes import Kind


@dataclass(frozen=True, slots=True)
class Recorded:
    """A delivery that was just written, perhaps leased, in a transaction that may still be open.

    ``since`` is a ``monotonic()`` stamp from before the INSERT, where ``leased``.
    """

    delivery: Delivery
    using: str
    leased: bool = False
    since: float = 0.0
    #: Only rewritten in its own transaction: its hint is registered already.
    rewritten: bool = False
    #: What it took over from those that it replaced.
    legacy: Legacy = field(default_factory=Legacy)


class Queue:
    """Jobs that are ready, by place, in turn. Not safe by itself: its owner holds a lock.

    An endpoint never has more than its ``MAX_CONCURRENCY`` in flight, so one that hangs leaves
    the other senders alone. ``may_begin`` is asked whether a call to a place may, as in ``Health``.
    Of an endpoint that is ``unresolved``, one job asks the RESOLVER for all; its family never asks
    more at once than one of its endpoints may have in flight.
    """

    def __init__(
        self,
        limit: int,
        limit_bytes: int,
        concurrency_of: Callable[[str], int],
        may_begin: Callable[..., bool],
        unresolved: Callable[[str], bool] = lambda endpoint: False,
    ) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._concurrency_of = concurrency_of
        self._may_begin = may_begin
        self._unresolved = unresolved
        self._ready: dict[Place, Line] = {}
        self._in_flight: dict[str, dict[Job, None]] = {}
        self._count = 0
        #: How many jobs were taken so far.
        self.begun = 0

    def __len__(self) -> int:
        return self._count

    @property
    def in_flight(self) -> int:
        """Count the jobs that were taken and not yet given back."""
        return sum(map(len, self._in_flight.values()))

    @property
    def room(self) -> int:
        """Count how many more fit; 0 when the bytes are used up."""
        return max(0, self.limit - self._count) if self.bytes < self.limit_bytes else 0

    @property
    def may_go(self) -> bool:
        """Whether one of the jobs may go now."""
        return next(self._open(), None) is not None

    @property
    def last_begun(self) -> float | None:
        """Return when the youngest of the jobs in flight was taken."""
        youngest = (next(reversed(flying)) for flying in self._in_flight.values())
        return max((job.begun_at for job in youngest), default=None)

    def put(self, job: Job) -> bool:
        """Add a job; False, and nothing is kept, when it is full."""
        if self._count >= self.limit or (self._count and self.bytes + job.size > self.limit_bytes):
            return False
        self._line_of(job).append(job)
        return True

    def put_back(self, job: Job) -> None:
        """Put a job that was taken before all others: it may not begin yet."""
        self.done(job)
        self.begun -= 1
        self._line_of(job).appendleft(job)

    def _line_of(self, job: Job) -> deque[Job]:
        """Count a job in, and return where it belongs."""
        self._count += 1
        self.bytes += job.size
        return self._ready.setdefault(job.place, Line()).jobs_like(job)

    def take(self) -> Job | None:
        """Return the next job of the place whose turn it is; None where none may go now."""
        place = next(self._open(), None)
        if place is None:
            return None
        line = self._ready.pop(place)
        job = line.take()
        if line:  # back to the end
            self._ready[place] = line
        self._forget(job)
        self.begun += 1
        job.begun_at, job.asks = monotonic(), self._unresolved(place.endpoint)
        self._in_flight.setdefault(place.endpoint, {})[job] = None
        return job

    def done(self, job: Job) -> None:
        """Give back a job that was taken."""
        flying = self._in_flight.get(job.delivery.endpoint, {})
        flying.pop(job, None)
        if not flying:
            self._in_flight.pop(job.delivery.endpoint, None)

    def held(self) -> Iterator[Job]:
        """Yield all jobs, ready or in flight."""
        yield from self.ready()
        for flying in self._in_flight.values():
            yield from flying

    def ready(self) -> Iterator[Job]:
        """Yield the jobs that nobody took yet."""
        for line in self._ready.values():
            yield from line

    def drop(self, job: Job) -> None:
        """Forget a job: its lease is somebody else's now."""
        line = self._ready.get(job.place)
        if line is not None and job in line:
            line.jobs_like(job).remove(job)
            self._forget(job)
            if not line:
                del self._ready[job.place]

    def remove(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Forget and return those that nobody took yet and that are unwanted."""
        removed = []
        for place, line in list(self._ready.items()):
            removed += line.remove(unwanted)
            if not line:
                del self._ready[place]
        for job in removed:
            self._forget(job)
        return removed

    def waiting(self, place: Place) -> int:
        """Count the jobs of one place that are ready."""
        return len(self._ready.get(place, ()))

    def probes(self, place: Place) -> bool:
        """Say whether the one call that probes a place is ready or in flight."""
        line, flying = self._ready.get(place), self._in_flight.get(place.endpoint, {})
        return bool(line and line.probes) or any(j.probe and j.place == place for j in flying)

    def places(self) -> Collection[Place]:
        """Return the places that have a job ready."""
        return self._ready.keys()

    def outboxes(self) -> set[str]:
        """Return the databases whose jobs are ready."""
        return {place.using for place in self._ready}

    def crowded(self, using: str, many: int) -> frozenset[Kind]:
        """Return of what so many jobs are ready already, from one outbox."""
        return frozenset(
            Kind(place.endpoint, retried)
            for place, line in self._ready.items()
            for retried in (False, True)
            if place.using == using and len(line.of(retried=retried)) >= max(1, many)
        )

    def crowded_families(self, many: int) -> frozenset[str]:
        """Return the families whose unresolved endpoints have so many jobs ready together."""
        ready: Counter[str] = Counter()
        for place, line in self._ready.items():
            if self._unresolved(place.endpoint):
                ready[_family(place.endpoint)] += len(line)
        return frozenset(name for name, count in ready.items() if count >= max(1, many))

    def clear(self) -> list[Job]:
        """Forget and return the jobs that nobody took yet."""
        jobs = list(self.ready())
        self._ready.clear()
        self._count = self.bytes = 0
        return jobs

    def _open(self) -> Iterator[Place]:
        """Yield the places that have a job ready and may have one more in flight, in turn."""
        asking = {e for e, jobs in self._in_flight.items() if any(job.asks for job in jobs)}
        questions = Counter(map(_family, asking))
        for place, line in self._ready.items():
            endpoint, most = place.endpoint, self._concurrency_of(place.endpoint)
            free = len(self._in_flight.get(endpoint, {})) < most
            if free and self._unresolved(endpoint):
                free = endpoint not in asking and questions[_family(endpoint)] < most
            if free and self._may_begin(place, probe=bool(line.probes)):
                yield place

    def _forget(self, job: Job) -> None:
        self._count -= 1
        self.bytes -= job.size


def _family(endpoint: str) -> str:
    return endpoint.partition(":")[0]
