"""What the threads of one process share: the jobs in hand, behind one lock."""

from dataclasses import dataclass, field
from math import inf
from threading import Condition, Lock
from time import monotonic

from signal_dispatch.endpoints import breaker_of, endpoints
from signal_dispatch.health import Health
from signal_dispatch.jobs import Job, Place
from signal_dispatch.queueing import Queue
from signal_dispatch.settling import Settlement

#: Answers that may be unrecorded at once: after a crash these calls are made again.
MAX_UNRECORDED = 32
#: A burst of saves is on until so many seconds after the last one.
BURST_SECONDS = 0.02
#: Seconds after which a call needs the interpreter no more: it waits for its answer.
BUSY_SECONDS = 0.05
#: Seconds that a job is held back at most.
PATIENCE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Settled:
    """A job that was tried, what it led to, and since when that waits to be recorded."""

    job: Job
    settlement: Settlement
    since: float = field(default_factory=monotonic)


class Hand:
    """The jobs of one process, from the INSERT that leased them to the record of their outcome.

    Whoever reads or writes an attribute holds ``lock``. Times are ``monotonic()`` stamps.
    ``watching``: breakers, pauses and rates are heeded, and what a rate holds back for more than
    ``rate_patience`` seconds is given back to the table.
    """

    def __init__(
        self,
        queue_size: int,
        queue_bytes: int,
        *,
        watching: bool = True,
        rate_patience: float = inf,
    ) -> None:
        self.lock = Lock()
        #: Senders wait here for a job, the bookkeeper for work, whoever drains for an empty hand.
        self.ready = Condition(self.lock)
        self.work = Condition(self.lock)
        self.calm = Condition(self.lock)

        self.health = Health(breaker_of, watching=watching, rate_patience=rate_patience)
        self.queue = Queue(
            queue_size, queue_bytes, _concurrency_of, self.health.may_begin, endpoints.is_open
        )
        #: Leased at the INSERT, not heard of since: alias and id, and when the lease began.
        self.watched: dict[tuple[str, int], float] = {}
        #: Committed, but perhaps not as they were written.
        self.to_read: dict[tuple[str, int], float] = {}
        #: Lanes that may have become free: alias and lane.
        self.to_look: set[tuple[str, str]] = set()
        #: How many of those the bookkeeper is looking into just now.
        self.looking = 0
        #: Lanes to be looked at once more in a while: somebody had their first row locked.
        self.blocked: set[tuple[str, str]] = set()
        #: Jobs whose lease is too old to begin an attempt.
        self.stale: list[Job] = []
        self.settled: list[Settled] = []
        #: How many of the settled ones the bookkeeper is writing just now.
        self.recording = 0
        #: When a thread that is no sender saved something, the last time.
        self.saved_at = -inf
        #: What hooks under test and broken code raised in threads.
        self.errors: list[BaseException] = []
        #: No sender takes another job; once closing, the bookkeeper ends too.
        self.stopping = False
        #: Nothing more is taken from the table: what is in hand is all that will be sent.
        self.finishing = False
        self.closing = False

    @property
    def unrecorded(self) -> int:
        """Count the answers that came and are not in the database yet."""
        return len(self.settled) + self.recording

    @property
    def is_full(self) -> bool:
        """Whether a new delivery had better be left in the table."""
        known = len(self.queue) + len(self.watched) + len(self.to_read)
        return known >= self.queue.limit or not self.queue.room

    @property
    def is_empty(self) -> bool:
        """Whether nothing is in flight, and nothing known that would be."""
        return not (
            len(self.queue)
            or self.queue.in_flight
            or self.unrecorded
            or self.to_read
            or self.to_look
            or self.looking
            or self.blocked
            or self.stale
        )

    def has_room_for(self, place: Place) -> bool:
        """Whether a new delivery for a place may be taken: none of them may fill the hand alone."""
        return not self.is_full and self.queue.waiting(place) < self.queue.limit * 3 / 4

    def is_probing(self, place: Place) -> bool:
        """Whether it has the one call that probes a place, for however long it can't go or end."""
        stale = any(job.probe and job.place == place for job in self.stale)
        return stale or self.queue.probes(place)

    @property
    def seconds_slowed(self) -> float:
        """Return after how many seconds a rate lets something go that is ready; 0 where none is."""
        return self.health.seconds_slowed(self.queue.places())

    def note_save(self) -> None:
        """Note that a thread saved something just now."""
        self.saved_at = monotonic()

    @property
    def gives_way(self) -> float:
        """Return for how many seconds more the ready jobs are held back; 0 where they may go.

        Threads that save and threads that send share the interpreter's lock, and somebody waits
        for the save. So in a burst of saves one call at a time is begun, and the next one when it
        is done, waits for its answer, or a job was held back for too long.
        """
        now, begun = monotonic(), self.queue.last_begun
        if begun is None or now >= min(self.saved_at + BURST_SECONDS, begun + BUSY_SECONDS):
            return 0.0  # without a look at what is ready, which may be for thousands of endpoints
        ready = self.queue.ready_since
        if ready is None:
            return 0.0
        until = min(self.saved_at + BURST_SECONDS, begun + BUSY_SECONDS, ready + PATIENCE_SECONDS)
        return max(0.0, until - now)

    def held(self) -> list[Job]:
        """Return every job whose lease has to be kept."""
        return [*self.queue.held(), *self.stale, *(s.job for s in self.settled)]


def _concurrency_of(alias: str) -> int:
    endpoint = endpoints.find(alias)
    return endpoint.max_concurrency if endpoint else 1
