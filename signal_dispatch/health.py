"""What a process knows of the endpoints that it calls: how they fare, and which may be called."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from time import monotonic

from signal_dispatch.breakers import Breaker
from signal_dispatch.counting import counts_of
from signal_dispatch.jobs import Job, Place
from signal_dispatch.models import Attempt

#: Seconds that counts of an endpoint which is well may wait for others to be written with.
COUNT_SECONDS = 0.5
#: Seconds after the first success at which an incident may be over.
CALM_SECONDS = 120.0
#: Seconds between two times that the waiting retries of one endpoint are brought forward.
RECOVERY_SECONDS = 30.0


@dataclass(slots=True)
class News:
    """What the outbox was not told yet of the calls to one endpoint."""

    #: By the names of a minute's fields, and since when the oldest of it is known.
    counts: Counter[str] = field(default_factory=Counter)
    since: float = inf
    #: Whether there are failures that the outbox counts by now, but was not asked about.
    to_judge: bool = False
    #: Whether a probe ended, and succeeded; None where it learned nothing.
    has_probed: bool = False
    probe_succeeded: bool | None = None

    def add(self, other: "News") -> None:
        """Take over what the other says."""
        self.counts.update(other.counts)
        self.since = min(self.since, other.since)
        self.to_judge |= other.to_judge
        if other.has_probed:
            self.has_probed, self.probe_succeeded = True, other.probe_succeeded


@dataclass(slots=True)
class Pulse:
    """How the calls from one outbox to one endpoint fare."""

    news: News = field(default_factory=News)
    #: What the breaker judges by, as the outbox last told; the news come on top.
    attempts: int = 0
    failed: int = 0
    #: A few more failures could open the breaker: no call begins before the outbox is asked.
    unsure: bool = False
    #: An attempt failed, and none succeeded since.
    ailing: bool = False
    #: When its waiting retries came forward, the last time.
    recovered_at: float = -inf

    def is_near(self, breaker: Breaker) -> bool:
        """Say whether a few more failures could open the breaker."""
        counts = self.news.counts
        attempts = self.attempts + counts["breaker_attempts"]
        return breaker.is_near(attempts, self.failed + counts["breaker_failed"])

    @property
    def tell_at(self) -> float:
        """When the outbox is to be told."""
        urgent = self.unsure or self.news.has_probed or self.news.to_judge
        return self.news.since if urgent else self.news.since + COUNT_SECONDS


class Health:
    """The pulses of all endpoints, and which of them must not be called just now.

    Whoever calls holds the hand's lock; times are ``monotonic()`` stamps. One that is not
    ``watching`` notes nothing and bars nobody: so under test, where a mock that fails would.
    What a ``RATE`` holds back for more than ``rate_patience`` seconds counts as barred.
    """

    def __init__(
        self,
        breaker_of: Callable[[str], Breaker | None],
        *,
        watching: bool = True,
        rate_patience: float = inf,
    ) -> None:
        self.watching = watching
        self._rate_patience = rate_patience
        self._breaker_of = breaker_of
        self._pulses: dict[Place, Pulse] = {}
        #: Those of which there is news.
        self._untold: dict[Place, Pulse] = {}
        #: Those whose waiting retries may come forward, and when.
        self._recovering: dict[Place, float] = {}
        #: Paused, or the breaker is open; with the time from which a probe may be made.
        self._barred: dict[Place, float] = {}
        #: Those that an incident goes on at, and since when calls succeed, where they do.
        self._failing: dict[Place, float] = {}
        #: Endpoints whose ``RATE`` is used up, until then.
        self._slowed: dict[str, float] = {}

    # Which may be called

    def may_begin(self, place: Place, *, probe: bool = False) -> bool:
        """Say whether a call may begin now; to one that is barred only a probe may."""
        pulse = self._pulses.get(place)
        if (pulse is not None and pulse.unsure) or (not probe and place in self._barred):
            return False
        return self._slowed.get(place.endpoint, 0.0) <= monotonic()

    def turns_away(self, job: Job) -> bool:
        """Say whether a job is no longer to be sent from here."""
        slowed = job.place.endpoint in self.slowed(self._rate_patience)
        at = self._barred.get(job.place)
        return slowed or (at is not None and (at == inf or not job.probe))

    def barred(self, using: str) -> dict[str, float]:
        """Return the barred endpoints of one outbox, and from when each may be probed."""
        barred = {p.endpoint: at for p, at in self._barred.items() if p.using == using}
        return barred | dict.fromkeys(self.slowed(self._rate_patience), inf)

    def bar(self, using: str, seconds: Mapping[str, float]) -> None:
        """Bar these endpoints of one outbox and no others; ``seconds`` until a probe each."""
        now = monotonic()
        self._barred = {p: at for p, at in self._barred.items() if p.using != using}
        for endpoint, left in seconds.items():
            self._barred[Place(using, endpoint)] = now + left

    def slow(self, endpoint: str, seconds: float) -> None:
        """Let no call to this endpoint begin for so long: its ``RATE`` is used up."""
        self._slowed[endpoint] = monotonic() + seconds

    def slowed(self, seconds: float = 0.0) -> set[str]:
        """Return the endpoints whose ``RATE`` is used up for longer than so many seconds."""
        until = monotonic() + seconds
        return {endpoint for endpoint, at in self._slowed.items() if at > until}

    def seconds_slowed(self, places: Iterable[Place]) -> float:
        """Return after how many seconds the first of these is no longer slowed; 0 if none is."""
        now = monotonic()
        left = (self._slowed.get(place.endpoint, now) - now for place in places)
        return min((seconds for seconds in left if seconds > 0), default=0.0)

    # How they fare

    def note(self, job: Job, attempt: Attempt | None) -> None:
        """Note how a job went; ``attempt`` is None where none was made."""
        counts = counts_of(attempt) if attempt is not None else Counter[str]()
        if not self.watching or not (counts or job.probe):
            return
        pulse = self._pulses.setdefault(job.place, Pulse())
        news = News(counts, monotonic(), has_probed=job.probe)
        failed = counts["breaker_failed"] > 0
        if job.probe and counts:
            news.probe_succeeded = not failed
        pulse.news.add(news)
        self._untold[job.place] = pulse
        if failed:
            breaker = self._breaker_of(job.place.endpoint)
            pulse.unsure |= breaker is not None and pulse.is_near(breaker)
            pulse.ailing = True
        elif counts["answered_2xx"] or counts["delivered"]:
            self._note_success(job.place, pulse)

    def _note_success(self, place: Place, pulse: Pulse) -> None:
        if self._failing.get(place) == inf:
            self._failing[place] = monotonic()
        if pulse.ailing:
            pulse.ailing = False
            self._recover(place, pulse)

    def next_news(self) -> float:
        """Return when the outbox is to be told something, or retries come forward."""
        times = [pulse.tell_at for pulse in self._untold.values()]
        calm = [since + CALM_SECONDS for since in self._failing.values()]
        return min([*times, *self._recovering.values(), *calm], default=inf)

    def take_news(self, now: float) -> dict[Place, News]:
        """Take what the outbox is to be told by then."""
        taken = {}
        for place, pulse in list(self._untold.items()):
            if pulse.tell_at <= now:
                taken[place], pulse.news = pulse.news, News()
                del self._untold[place]
        return taken

    def give_back(self, place: Place, news: News) -> None:
        """Keep what could not be told."""
        self._untold[place] = pulse = self._pulses[place]
        pulse.news.add(news)

    def learn(self, place: Place, attempts: int, failed: int) -> None:
        """Take over what the breaker judges by, as the outbox told it."""
        pulse = self._pulses[place]
        pulse.attempts, pulse.failed = attempts, failed
        # What failed since the outbox was asked is another question.
        pulse.unsure &= pulse.news.counts["breaker_failed"] > 0

    def counted(self, place: Place, counts: Mapping[str, int]) -> None:
        """Add to what the breaker judges by what the outbox was told just now."""
        pulse = self._pulses[place]
        pulse.attempts += counts.get("breaker_attempts", 0)
        pulse.failed += counts.get("breaker_failed", 0)

    # Incidents

    def is_failing(self, place: Place) -> bool:
        """Say whether an incident goes on there, as far as is known."""
        return place in self._failing

    def learn_failing(self, using: str, endpoints: Iterable[str]) -> None:
        """Take over which incidents go on in one outbox."""
        places = {Place(using, endpoint) for endpoint in endpoints}
        others = {p: since for p, since in self._failing.items() if p.using != using}
        self._failing = others | {p: self._failing.get(p, inf) for p in places}

    def begin_failing(self, place: Place) -> None:
        """Note an incident that began, or goes on."""
        self._failing.setdefault(place, inf)

    def take_calm(self, now: float) -> list[Place]:
        """Take those whose incident may be over: the last call succeeded, the first a while ago.

        The next success begins another while.
        """
        begun = [p for p, at in self._failing.items() if at < inf and at + CALM_SECONDS <= now]
        for place in begun:
            self._failing[place] = inf
        return [place for place in begun if not self._pulses[place].ailing]

    def end_failing(self, place: Place) -> None:
        """Note that an incident is over."""
        self._failing.pop(place, None)

    # Retries that come forward

    def take_recovered(self, now: float) -> list[Place]:
        """Take those whose waiting retries may come forward now."""
        ripe = [place for place, at in self._recovering.items() if at <= now]
        for place in ripe:
            del self._recovering[place]
            self._pulses[place].recovered_at = now
        return ripe

    def recover(self, place: Place) -> None:
        """Let the waiting retries of a place come forward: its breaker closed."""
        self._recovering[place] = monotonic()

    def _recover(self, place: Place, pulse: Pulse) -> None:
        self._recovering.setdefault(place, max(monotonic(), pulse.recovered_at + RECOVERY_SECONDS))
