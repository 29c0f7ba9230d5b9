"""What a process has in hand: bounded, fair between endpoints, known to be leased."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from time import monotonic

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


@dataclass(slots=True, eq=False)
class Job:
    """A leased delivery that this process is to send. ``since``: when the lease began at latest."""

    delivery: Delivery
    using: str
    since: float
    #: When the queue got it, and when a sender took it.
    ready_at: float = 0.0
    begun_at: float = 0.0
    #: Until when its lease is renewed: foreign code has no deadline.
    renewed_until: float = inf
    #: Whether whoever took it has to ask a RESOLVER first, and has no answer yet.
    asks: bool = False

    @property
    def claim(self) -> tuple[int, int]:
        """The delivery's id, and the epoch at which this process got it."""
        return self.delivery.pk, self.delivery.epoch

    @property
    def size(self) -> int:
        """Bytes that the job is counted with."""
        return len(self.delivery.body) + len(self.delivery.path) + _OVERHEAD_BYTES

    @property
    def age(self) -> float:
        """Seconds since the lease may have begun."""
        return monotonic() - self.since


class Queue:
    """Jobs that are ready, by endpoint, in turn. Not safe by itself: its owner holds a lock.

    An endpoint never has more than its ``MAX_CONCURRENCY`` in flight, so one that hangs leaves
    the other senders alone. Of an endpoint that is ``unresolved``, one job asks the RESOLVER for
    all; its family never asks more at once than one of its endpoints may have in flight.
    """

    def __init__(
        self,
        limit: int,
        limit_bytes: int,
        concurrency_of: Callable[[str], int],
        unresolved: Callable[[str], bool] = lambda endpoint: False,
    ) -> None:
        self.limit = limit
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self._concurrency_of = concurrency_of
        self._unresolved = unresolved
        self._ready: dict[str, deque[Job]] = {}
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
        return min((self._ready[endpoint][0].ready_at for endpoint in self._open()), default=None)

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
        self._ready.setdefault(job.delivery.endpoint, deque()).append(job)
        self._count += 1
        self.bytes += job.size
        return True

    def take(self) -> Job | None:
        """Return the next job of the endpoint whose turn it is; None where none may go now."""
        endpoint = next(self._open(), None)
        if endpoint is None:
            return None
        jobs = self._ready.pop(endpoint)
        job = jobs.popleft()
        if jobs:  # back to the end of the line
            self._ready[endpoint] = jobs
        self._forget(job)
        job.begun_at, job.asks = monotonic(), self._unresolved(endpoint)
        self._in_flight.setdefault(endpoint, {})[job] = None
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
        for jobs in self._ready.values():
            yield from jobs

    def drop(self, job: Job) -> None:
        """Forget a job: its lease is somebody else's now."""
        jobs = self._ready.get(job.delivery.endpoint)
        if jobs is not None and job in jobs:
            jobs.remove(job)
            self._forget(job)
            if not jobs:
                del self._ready[job.delivery.endpoint]

    def crowded(self, many: int) -> frozenset[str]:
        """Return the endpoints that have so many jobs ready.

        And the families whose unresolved endpoints have so many together.
        """
        ready: Counter[str] = Counter()
        for endpoint, jobs in self._ready.items():
            ready[endpoint] += len(jobs)
            if self._unresolved(endpoint):
                ready[_family(endpoint)] += len(jobs)
        return frozenset(name for name, count in ready.items() if count >= max(1, many))

    def clear(self) -> list[Job]:
        """Forget and return the jobs that nobody took yet."""
        jobs = list(self.ready())
        self._ready.clear()
        self._count = self.bytes = 0
        return jobs

    def _open(self) -> Iterator[str]:
        """Yield the endpoints that have a job ready and may have one more in flight, in turn."""
        asking = {e for e, jobs in self._in_flight.items() if any(job.asks for job in jobs)}
        questions = Counter(map(_family, asking))
        for endpoint in self._ready:
            most = self._concurrency_of(endpoint)
            if len(self._in_flight.get(endpoint, {})) >= most:
                continue
            if self._unresolved(endpoint) and (
                endpoint in asking or questions[_family(endpoint)] >= most
            ):
                continue
            yield endpoint

    def _forget(self, job: Job) -> None:
        self._count -= 1
        self.bytes -= job.size


def _family(endpoint: str) -> str:
    return endpoint.partition(":")[0]
