"""Find what is due in the table: tried before, spilled, or left by a process that is gone."""

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Protocol

from signal_dispatch import claims, lanes, naps
from signal_dispatch.appetites import Appetite
from signal_dispatch.endpoints import endpoints
from signal_dispatch.gates import Gatekeeper
from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Place
from signal_dispatch.models import Delivery
from signal_dispatch.naps import MAX_SLEEP_SECONDS, Naps
from signal_dispatch.outboxes import Outboxes
from signal_dispatch.probing import claim_probe
from signal_dispatch.scopes import Kind, Scope

#: The longest sleep, in seconds, while something is due that could not be taken.
RETRY_SECONDS = 1.0
#: Seconds between two looks for lanes that wait behind nothing.
REPAIR_SECONDS = 300.0


class Take(Protocol):
    """Told of each delivery that is found, its outbox, and when its lease began at latest."""

    def __call__(self, delivery: Delivery, using: str, since: float, *, probe: bool = ...) -> None:
        """Take it; ``probe`` is the one call that tries whether an endpoint is well again."""


class Sweeper:
    """Look at the outboxes when it is time or asked for, and take what is due.

    Belongs to the bookkeeper's thread; what other threads may call says so. ``eager``: after a
    find it looks again soon, and then more and more seldom.
    """

    def __init__(
        self,
        hand: Hand,
        scope: Callable[[], Scope],
        gatekeeper: Gatekeeper,
        *,
        batch: int,
        sweep_seconds: float,
        max_sleep_seconds: float = MAX_SLEEP_SECONDS,
        using: Iterable[str] = (),
        after_look: Callable[[str], None] | None = None,
        eager: bool = False,
    ) -> None:
        self._hand = hand
        self._scope = scope
        self._gatekeeper = gatekeeper
        self._batch = batch
        self._appetite = Appetite(batch)
        self._sweep_seconds = sweep_seconds
        self._naps = Naps(max_sleep_seconds, eager=eager)
        self._outboxes = Outboxes(using)
        self._after_look = after_look
        self._next = monotonic()
        self._next_repair = monotonic() + REPAIR_SECONDS * naps.share()
        #: Families, by their entry's alias, with enough in hand that waits for a RESOLVER.
        self._waiting_families: frozenset[str] = frozenset()
        #: Whether the senders had less room than there were due deliveries.
        self._more_is_due = False
        #: Numbers of sweeps: asked for, begun last, and the last one that found nothing due.
        self._asked = self._begun = self._calm = 0

    # For any thread that holds the lock

    def ask(self) -> None:
        """Look for due deliveries at once."""
        # A sweep that is under way may have looked already: the next one is meant.
        self._asked = self._begun + 1
        self._hand.work.notify()

    def meet(self, using: str) -> None:
        """Note that there is an outbox in this database."""
        self._outboxes.meet(using)

    @property
    def found_nothing(self) -> bool:
        """Whether a sweep that began after the last ``ask()`` found nothing due."""
        return self._calm >= self._asked

    def next_at(self, now: float) -> float:
        """Return when the next sweep is due, by ``monotonic()``."""
        queue = self._hand.queue
        if self._hand.stopping or self._hand.finishing:
            return now + MAX_SLEEP_SECONDS
        if self._asked > self._begun:
            return now
        if self._more_is_due and queue.room and len(queue) < self._appetite.enough:
            return now
        return self._next

    def faults(self) -> list[str]:
        """Say of each outbox that could not be looked into why that is."""
        return self._outboxes.faults()

    # For the bookkeeper

    def aliases(self) -> list[str]:
        """Return where there is an outbox to look into, without what rests just now."""
        return self._outboxes.awake()

    def expect(self, seconds: float) -> None:
        """Note that something is due again after so many seconds."""
        self._next = min(self._next, monotonic() + seconds)

    def sweep(self, take: Take) -> None:
        """Look into every outbox. One that refuses rests a while, and the others go on.

        Raises what the database raised only where none could be looked into.
        """
        with self._hand.lock:
            self._begun += 1
        scope, repair = self._scope(), monotonic() >= self._next_repair
        self._more_is_due = False
        if repair:
            self._next_repair = monotonic() + REPAIR_SECONDS
        reached, refused, took = {}, {}, {}
        for using in self._outboxes.awake():
            began = monotonic()
            try:
                reached[using] = self._sweep_one(using, scope, take, repair=repair)
                self._outboxes.note_well(using)
                if self._after_look is not None:
                    self._after_look(using)
            except Exception as error:  # noqa: BLE001 - raised below, or logged
                if not self._outboxes.is_left_out(using, error):
                    refused[using], took[using] = error, monotonic() - began
                    self._outboxes.note_unwell(using, error)
        if refused and not reached:
            raise next(iter(refused.values()))
        waits = [self._naps.longest, *reached.values()]
        waits += [self._outboxes.rest(alias, refused[alias], took[alias]) for alias in refused]
        self._next = monotonic() + self._naps.after(min(waits))
        # Where enough was in hand it was not asked what else is due.
        if min(waits) > 0 and not self._more_is_due:
            with self._hand.lock:
                self._calm = self._begun

    def _crowded(self, using: str) -> frozenset[Kind]:
        """Return of what there is enough in hand: an endpoint that hangs keeps no other out."""
        with self._hand.lock:
            crowded = self._hand.queue.crowded(using, self._appetite.enough)
            self._waiting_families = self._hand.queue.crowded_families(self._appetite.enough)
        self._more_is_due |= bool(crowded or self._waiting_families)
        return crowded

    def _waits_for_resolver(self, endpoint: str) -> bool:
        """Say whether enough of its family is in hand, and a RESOLVER must be asked for it."""
        family, colon, _key = endpoint.partition(":")
        return bool(colon) and family in self._waiting_families and endpoints.is_open(endpoint)

    def _sweep_one(self, using: str, scope: Scope, take: Take, *, repair: bool) -> float:
        """Take what is due; return the seconds until the next look, 0 where something was."""
        if repair:
            idle = lanes.idle_lanes(scope.rows(using), self._batch)
            if len(idle) == self._batch:  # there may be more
                self._next_repair = monotonic()
            with self._hand.lock:
                self._hand.to_look |= {(using, lane) for lane in idle}
        known = self._barred(using)
        if known:
            self._gatekeeper.ask(using)
            known = self._barred(using)
        without = self._crowded(using) | {
            Kind(endpoint, retried)
            for endpoint, left in known.items()
            for retried in (False, True)
            if left > 0
        }
        looked = claims.seconds_until_due(using, scope, without=without)
        seconds = {
            k: left for k, left in looked.items() if not self._waits_for_resolver(k.endpoint)
        }
        due = claims.due_kinds(seconds)
        if due and self._take_due(using, scope, take, due):
            return 0.0
        # Of what is due and was not taken, another process may be trying one.
        tried = [RETRY_SECONDS] if due else []
        waits = [*seconds.values(), *self._barred(using).values(), *tried]
        waits = [left for left in waits if left > 0]
        return min(self._sweep_seconds, *waits) if waits else self._naps.longest

    def _take_due(self, using: str, scope: Scope, take: Take, due: Sequence[Kind]) -> bool:
        """Take what is due at endpoints that may be called; say whether something was."""
        self._gatekeeper.ask(using)
        barred = self._barred(using)
        free = [kind for kind in due if kind.endpoint not in barred]
        if free:
            self._claim(using, scope, free, take)
        ripe = {kind.endpoint for kind in due if barred.get(kind.endpoint, 1.0) <= 0}
        probed = [self._probe(using, scope, e, due, take) for e in sorted(ripe)]
        return bool(free) or any(probed)

    def _barred(self, using: str) -> dict[str, float]:
        """Return the barred endpoints, as last heard, and after how many seconds to probe each."""
        with self._hand.lock:
            barred = self._hand.health.barred(using)
        now = monotonic()
        return {endpoint: at - now for endpoint, at in barred.items()}

    def _probe(
        self, using: str, scope: Scope, endpoint: str, due: Sequence[Kind], take: Take
    ) -> bool:
        """Take one delivery, the longest due, to see whether its endpoint is well again."""
        with self._hand.lock:
            may = self._hand.queue.room and not self._hand.is_probing(Place(using, endpoint))
        began = monotonic()
        probe = claim_probe(using, claims.own_lease(), scope, endpoint, due) if may else None
        if probe is None:
            return False
        take(probe, using, began, probe=True)
        self._gatekeeper.ask(using)  # when the next probe may be made
        return True

    def _claim(self, using: str, scope: Scope, due: Sequence[Kind], take: Take) -> None:
        with self._hand.lock:
            room = min(self._appetite.size, self._hand.queue.room)
            begun = self._hand.queue.begun
        if not room:
            self._more_is_due = True
            return
        began, lease = monotonic(), claims.own_lease()
        taken = claims.claim(using, lease, scope, room, due=due)
        self._more_is_due |= len(taken) == room
        self._appetite.note(filled=len(taken) == room, begun=begun)
        for delivery in taken:
            take(delivery, using, began)
