"""Leased deliveries that a process is to send, and where they go."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from math import inf
from time import monotonic
from typing import NamedTuple

from signal_dispatch.conf import MARGIN_SECONDS, settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import Delivery

# What a job costs beside its body, roughly; so that a million empty ones are bounded too.
_OVERHEAD_BYTES = 2_000


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
    #: The one call that tries whether an endpoint is well again.
    probe: bool = False
    #: When a sender took it.
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

    @property
    def may_begin(self) -> bool:
        """Whether the lease outlasts an attempt that begins now."""
        endpoint = endpoints.find(self.delivery.endpoint)
        longest = endpoint.deadline if endpoint else 0.0
        return self.age < max(1.0, settings.lease_seconds - longest - MARGIN_SECONDS)


class Line:
    """The jobs of one place that are ready: a probe, or first attempts and retries, in turn."""

    def __init__(self) -> None:
        self._kinds: tuple[deque[Job], deque[Job]] = (deque(), deque())
        self._turn = 0
        self.probes: deque[Job] = deque()

    def __len__(self) -> int:
        return len(self.probes) + sum(map(len, self._kinds))

    def __iter__(self) -> Iterator[Job]:
        return chain(self.probes, *self._kinds)

    def of(self, *, retried: bool) -> deque[Job]:
        """Return the first attempts, or the retries."""
        return self._kinds[retried]

    def jobs_like(self, job: Job) -> deque[Job]:
        """Return those among which a job belongs."""
        return self.probes if job.probe else self.of(retried=job.delivery.retried)

    def remove(self, unwanted: Callable[[Job], bool]) -> list[Job]:
        """Forget and return those that are unwanted."""
        removed = []
        for jobs in (self.probes, *self._kinds):
            mine = [job for job in jobs if unwanted(job)]
            if mine:
                gone = set(mine)
                kept = [job for job in jobs if job not in gone]
                jobs.clear()
                jobs.extend(kept)
            removed += mine
        return removed

    def take(self) -> Job:
        """Return the next one; there is one."""
        if self.probes:
            return self.probes.popleft()
        turn = self._turn if self._kinds[self._turn] else 1 - self._turn
        self._turn = 1 - turn
        return self._kinds[turn].popleft()
