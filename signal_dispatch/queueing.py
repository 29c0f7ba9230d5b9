"""What a process has in hand: bounded, fair between endpoints, known to be leased."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from time import monotonic
from typing import NamedTuple

from signal_dispatch.claims import Kind
from signal_dispatch.models import Delivery
from signal_dispatch.replacing import Legacy

# What a job costs beside its body, roughly; so that a million empty ones are bounded too.
_OVERHEAD_BYTES = 2_000


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


class Place(NamedTuple):
    """An endpoint, seen from one outbox. ``using`` is the database's alias."""

    using: str
    endpoint: str


@dataclass(slots=True, eq=False)
class Job:
    """A leased delivery that this process is to send. ``since``: when the lease began at latest."""

    delivery: Delivery
    using: str
    since: float
    #: When the queue got it, and when a sender took it.
    ready_at: float = 0.0
    begun_at: float = 0.0

    @property
    def place(self) -> Place:
        """Where it goes to."""
        return Place(self.using, self.delivery.endpoint)

    @property
    def size(self) -> int:
        """Bytes that the job is counted with."""
        return len(self.delivery.body) + len(self.delivery.path) + _OVERHEAD_BYTES

    @property
    def age(self) -> float:
        """Seconds since the lease may have begun."""
        return monotonic() - self.since


class Line:
    """The jobs of one place that are ready: first attempts and retries, in turn."""

    def __init__(self) -> None:
        self._kinds: tuple[deque[Job], deque[Job]] = (deque(), deque())
        self._turn = 0

    def __len__(self) -> int:
        return sum(map(len, self._kinds))

    def __iter__(self) -> Iterator[Job]:
        return chain(*self._kinds)

    @property
    def ready_since(self) -> float:
        """Return since when its oldest job is ready; there is one."""
        return min(jobs[0].ready_at for jobs in self._kinds if jobs)

    def of(self, *, retried: bool) -> deque[Job]:
        """Return the first attempts, or the retries."""
        return self._kinds[retried]

    def put(self, job: Job) -> None:
        """Add a job behind those of its kind."""
        self.of(retried=job.delivery.retried).append(job)

    def take(self) -> Job:
        """Return the next one; there is one."""
        turn = self._turn if self._kinds[self._turn] else 1 - self._turn
        self._turn = 1 - turn
        return self._kinds[turn].popleft()

    def drop(self, job: Job) -> bool:
        """Forget a job; False where it is not here."""
        jobs = self.of(retried=job.delivery.retried)
        if job not in jobs:
            return False
        jobs.remove(job)
        return True


class Queue:
    """Jobs that are ready, by place, in turn. Not safe by itself: its owner holds a lock.

    An endpoint never has more than its ``MAX_CONCURRENCY`` in flight, so one that hangs leaves
    the other senders alone.
    """

    def __init__(self, limit: int, limit_bytes: int, concurrency_of: Callable[[str], int]) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._concurrency_of = concurrency_of
        self._ready: dict[Place, Line] = {}
        self._in_flight: dict[str, dict[Job, None]] = {}
        self._count = 0

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
    def ready_since(self) -> float | None:
        """Return since when the oldest job that may go now is ready; None where none may."""
        return min((self._ready[place].ready_since for place in self._open()), default=None)

    @property
    def last_begun(self) -> float | None:
        """Return when the youngest of the jobs in flight was taken."""
        youngest = (next(reversed(flying)) for flying in self._in_flight.values())
        return max((job.begun_at for job in youngest), default=None)

    def put(self, job: Job) -> bool:
        """Add a job; False, and nothing is kept, when it is full."""
        if self._count >= self.limit or (self._count and self.bytes + job.size > self.limit_bytes):
            return False
        job.ready_at = monotonic()
        self._ready.setdefault(job.place, Line()).put(job)
        self._count += 1
        self.bytes += job.size
        return True

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
        job.begun_at = monotonic()
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
        if line is not None and line.drop(job):
            self._forget(job)
            if not line:
                del self._ready[job.place]

    def crowded(self, using: str, many: int) -> frozenset[Kind]:
        """Return of what so many jobs are ready already, from one outbox."""
        return frozenset(
            Kind(place.endpoint, retried)
            for place, line in self._ready.items()
            for retried in (False, True)
            if place.using == using and len(line.of(retried=retried)) >= max(1, many)
        )

    def clear(self) -> list[Job]:
        """Forget and return the jobs that nobody took yet."""
        jobs = list(self.ready())
        self._ready.clear()
        self._count = self.bytes = 0
        return jobs

    def _open(self) -> Iterator[Place]:
        """Yield the places that have a job ready and may have one more in flight, in turn."""
        for place in self._ready:
            flying = self._in_flight.get(place.endpoint, {})
            if len(flying) < self._concurrency_of(place.endpoint):
                yield place

    def _forget(self, job: Job) -> None:
        self._count -= 1
        self.bytes -= job.size
