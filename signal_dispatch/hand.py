"""What the threads of one process share: the jobs in hand, behind one lock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from threading import Condition, Lock
from time import monotonic

from signal_dispatch.bursts import Burst
from signal_dispatch.endpoints import breaker_of, endpoints
from signal_dispatch.health import Health
from signal_dispatch.jobs import Job, Place
from signal_dispatch.queueing import Queue
from signal_dispatch.settling import Settlement

#: Answers that may be unrecorded at once: after a crash these calls are made again.
MAX_UNRECORDED = 32
#: So many are recorded at once: the senders can go on meanwhile.
FLUSH_COUNT = 28
#: Seconds that an answer may wait for others to be recorded with.
FLUSH_SECONDS = 0.1
#: In a long burst of saves so many committed deliveries are read back together, or what has come
#: when the first of them has waited for so many seconds.
READ_COUNT, READ_SECONDS = 32, 0.05
#: Seconds after which a lane where something waited is taken for free again.
CONTENDED_SECONDS = 5.0
#: A burst of saves is on until so many seconds after the last one. So many notes of saves are a
#: long burst: a save is noted when it is recorded, and when it is committed.
BURST_SECONDS, LONG_BURST = 0.02, 12
#: A loop saves again within so many seconds. For its end everything waits that can, for so many
#: seconds at most: one that goes on has to bear with the calls.
LOOP_SECONDS, PATIENCE_SECONDS = 0.005, 3.0
#: Seconds after which a call that was begun is taken to wait for its answer: then it needs the
#: interpreter no more.
BUSY_SECONDS = 0.002
#: Seconds after which an answer comes late. Calls to such a remote mostly wait, so they need not
#: wait for the end of a burst; and what is not begun in time can't be made up for.
LATE_SECONDS = 0.01


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
        #: Since when the first of those waits to be read back.
        self.read_since = -inf
        #: Lanes that may have become free: alias and lane.
        self.to_look: set[tuple[str, str]] = set()
        #: How many of those the bookkeeper is looking into just now.
        self.looking = 0
        #: Lanes to be looked at once more in a while: somebody had their first row locked.
        self.blocked: set[tuple[str, str]] = set()
        #: Lanes in which something waited lately, and until when that counts.
        self.contended: dict[tuple[str, str], float] = {}
        #: Jobs whose lease is too old to begin an attempt.
        self.stale: list[Job] = []
        self.settled: list[Settled] = []
        #: How many of the settled ones the bookkeeper is writing just now.
        self.recording = 0
        #: Of saves by threads that are no senders.
        self._burst = Burst(BURST_SECONDS, LONG_BURST)
        self._loop = Burst(LOOP_SECONDS, LONG_BURST)
        #: When a save came last that found nothing waiting.
        self._patient_since = -inf
        #: Seconds that the last call took.
        self.took = inf
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
        now = monotonic()
        self._burst.note(now)
        self._loop.note(now)
        if not (self.to_read or len(self.queue)):
            self._patient_since = now

    @property
    def _yields_until(self) -> float:
        """Return until when everything that can wait does so for a loop that saves."""
        if self.took >= LATE_SECONDS or self.finishing:
            return -inf
        return min(self._loop.until, self._patient_since + PATIENCE_SECONDS)

    def note_committed(self, deliveries: Mapping[tuple[str, int], float]) -> None:
        """Note what is to be read back: alias and id, and when the lease began."""
        if not self.to_read:
            self.read_since = monotonic()
        self.to_read |= deliveries

    @property
    def next_read(self) -> float:
        """Return when to read back what was committed: after a loop, or together in a long burst.

        As all of these times: a stamp of ``monotonic()``, ``-inf`` for at once.
        """
        if not self.to_read:
            return inf
        now = monotonic()
        if now < self._yields_until:
            return self._yields_until
        if len(self.to_read) >= READ_COUNT or now >= self._burst.until:
            return -inf
        return min(self.read_since + READ_SECONDS, self._burst.until)

    def note_waiting(self, using: str, lane: str) -> None:
        """Note that something was recorded that waits in a lane; perhaps it need not."""
        now = monotonic()
        self.to_look.add((using, lane))
        if len(self.contended) >= 10 * MAX_UNRECORDED:
            self.contended = {one: until for one, until in self.contended.items() if until > now}
        self.contended[using, lane] = now + CONTENDED_SECONDS

    @property
    def next_flush(self) -> float:
        """Return when what is settled is to be recorded: together, where more is to come.

        What waits in the same lane waits for the record, so that is not put off.
        """
        if not self.settled:
            return inf
        awaited = self.contended and any(self._is_awaited(s.job) for s in self.settled)
        if len(self.settled) >= FLUSH_COUNT or awaited:
            return -inf
        latest = self.settled[0].since + FLUSH_SECONDS
        if self.queue.in_flight or len(self.queue):
            return latest
        return min(latest, self._burst.until) if monotonic() < self._burst.until else -inf

    def _is_awaited(self, job: Job) -> bool:
        return self.contended.get((job.using, job.delivery.lane), -inf) > monotonic()

    @property
    def gives_way(self) -> float:
        """Return for how many seconds more the ready jobs are held back; 0 where they may go.

        All threads share the interpreter's lock, and those that fight for it spend more time on
        that than on their calls. So calls are begun one after the other: the next one when the one
        before is done, or waits for its answer. And none is begun while a loop saves, for somebody
        waits for its end.
        """
        begun, now = self.queue.last_begun, monotonic()
        until = max(self._yields_until, -inf if begun is None else begun + BUSY_SECONDS)
        return until - now if now < until and self.queue.may_go else 0.0

    def keys(self) -> set[tuple[str, int]]:
        """Return alias and id of what it has a job for."""
        return {(job.using, job.delivery.pk) for job in self.held()}

    def held(self) -> list[Job]:
        """Return every job whose lease has to be kept."""
        return [*self.queue.held(), *self.stale, *(s.job for s in self.settled)]


def _concurrency_of(alias: str) -> int:
    endpoint = endpoints.find(alias)
    return endpoint.max_concurrency if endpoint else 1
