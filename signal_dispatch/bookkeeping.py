"""The one thread that keeps a process's deliveries and the outbox in step."""

import logging
from collections.abc import Callable, Iterable
from functools import partial
from math import inf
from time import monotonic
from typing import Any

from django.db import Error

from signal_dispatch import claims, lanes
from signal_dispatch.accounts import Accountant
from signal_dispatch.gates import Gatekeeper
from signal_dispatch.hand import Hand
from signal_dispatch.insertion import FIRST_EPOCH
from signal_dispatch.intake import Intake
from signal_dispatch.jobs import Job
from signal_dispatch.loops import Loop
from signal_dispatch.naps import MAX_SLEEP_SECONDS
from signal_dispatch.outboxes import do_all
from signal_dispatch.pruning import Pruner
from signal_dispatch.records import Recorder
from signal_dispatch.renewing import Renewer
from signal_dispatch.repairs import Repairer
from signal_dispatch.returning import return_jobs
from signal_dispatch.scopes import Scope
from signal_dispatch.sweeping import REPAIR_SECONDS, Sweeper

logger = logging.getLogger("signal_dispatch")


class Bookkeeper(Loop):
    """Record what was settled, read back what was committed, keep leases, take what is due.

    The only thread that needs the database for deliveries without hooks. When the hand closes it
    records, hands back, and ends.
    """

    def __init__(
        self,
        hand: Hand,
        scope: Callable[[], Scope],
        submit: Callable[[Job], bool],
        *,
        batch: int,
        **sweeping: Any,
    ) -> None:
        super().__init__(hand.work)
        self._hand = hand
        self.gatekeeper = Gatekeeper(hand)
        self.sweeper = Sweeper(hand, scope, self.gatekeeper, batch=batch, **sweeping)
        self.accountant = Accountant(hand, self.sweeper, self.gatekeeper)
        self.intake = Intake(hand, self.sweeper, submit, batch=batch)
        self.renewer = Renewer(hand, self.intake.submit_or_return)
        self.recorder = Recorder(hand, self.sweeper)
        self.pruner = Pruner(self.sweeper.aliases)
        longest = sweeping.get("max_sleep_seconds", MAX_SLEEP_SECONDS)
        self.repairer = Repairer(self.sweeper.aliases, min(REPAIR_SECONDS, 5 * longest))
        #: When it looks again by itself.
        self._looks_at = -inf

    # For any thread that holds the lock

    def note_lease(self) -> None:
        """Wake it where it would look after leases, and after hints that got lost, too late."""
        if self.renewer.next_at < self._looks_at:
            self._hand.work.notify()

    def note_settled(self) -> None:
        """Wake it where something is due sooner now: for each call it would do little else."""
        if self._due_at() < self._looks_at:
            self._hand.work.notify()

    # Waiting

    def _is_ending(self) -> bool:
        return self._hand.closing

    def _next_at(self) -> float:
        self._looks_at = self._due_at()
        return self._looks_at

    def _due_at(self) -> float:
        hand, now = self._hand, monotonic()
        if hand.to_look or hand.stale or (hand.stopping and len(hand.queue)):
            return now
        times = [
            hand.next_read,
            hand.next_flush,
            self.sweeper.next_at(now),
            self.gatekeeper.next_at(),
            hand.health.next_news(),
        ]
        if not (hand.stopping or hand.finishing):
            times += [self.pruner.next_at, self.repairer.next_at]
        if (next_look := self.intake.next_look()) is not None:
            times.append(next_look)
        if hand.watched or len(hand.queue) or hand.queue.in_flight or hand.settled:
            times.append(self.renewer.next_at)
        return min(times)

    # Working

    def _step(self) -> None:
        do_all(
            [
                self._record_if_due,
                lambda: self.accountant.account(monotonic()),
                self.gatekeeper.refresh,
                self._read_back_if_due,
                self.intake.look_again,
                self._return_unbegun,
                self._do_what_is_due,
            ]
        )
        with self._hand.lock:
            self._hand.calm.notify_all()

    # Both wait for more of their kind, whatever this step was begun for.

    def _record_if_due(self) -> None:
        with self._hand.lock:
            due = self._hand.next_flush <= monotonic()
        if due:
            self.recorder.record()

    def _read_back_if_due(self) -> None:
        with self._hand.lock:
            due = self._hand.next_read <= monotonic()
        if due:
            self.intake.read_back()

    def _do_what_is_due(self) -> None:
        with self._hand.lock:
            now = monotonic()
            renewing = bool(self._hand.stale) or now >= self.renewer.next_at
            sweeping = now >= self.sweeper.next_at(now)
        works: list[Callable[[], object]] = []
        if renewing:
            works += [self.renewer.renew, self.renewer.check_watched]
        if sweeping:
            works.append(lambda: self.sweeper.sweep(self.intake.take))
        if sweeping or now >= self.pruner.next_at:  # at rest it costs no connection of its own
            works.append(self.pruner.prune)
        if sweeping or now >= self.repairer.next_at:
            works.append(self._repair)
        do_all(works)

    def _repair(self) -> None:
        if self.repairer.repair():
            with self._hand.lock:  # what it made due need not wait for the next look
                self.sweeper.ask()

    # Ending

    def _return_unbegun(self) -> None:
        """Give what no sender will begin to others at once: calls in flight take their time."""
        hand = self._hand
        with hand.lock:
            left = hand.queue.clear() if hand.stopping else []
        return_jobs(hand, left)

    def _end(self) -> None:
        """Write what is known, and make what was not begun due at once for others."""
        hand = self._hand
        with hand.lock:
            unsent = [(job.using, *job.claim) for job in hand.queue.clear() + hand.stale]
            unsent += [(*key, FIRST_EPOCH) for key in hand.to_read]
            # Their transactions may be open still, and on MySQL keep this waiting: so at the end.
            unheard = [(*key, FIRST_EPOCH) for key in hand.watched]
            hand.stale, hand.to_read, hand.watched = [], {}, {}
        try:
            do_all(
                [
                    self.recorder.record,
                    partial(self.accountant.account, inf),
                    partial(_hand_back, unsent),
                    self._release_at_last,
                    partial(_hand_back, unheard),
                ]
            )
        except Error as error:
            logger.warning(
                "The outbox can't be reached (%s: %s); leases will run out, and what this process "
                "held is sent by others then.",
                type(error).__name__,
                error,
                extra={"action": "outbox_unavailable"},
            )
        with hand.lock:
            hand.calm.notify_all()

    def _release_at_last(self) -> None:
        with self._hand.lock:
            looks = self._hand.to_look | self._hand.blocked
            self._hand.to_look, self._hand.blocked = set(), set()
        freed: dict[str, set[str]] = {}
        for using, lane in looks:
            freed.setdefault(using, set()).add(lane)
        do_all([partial(lanes.release_at_last, using, mine, None) for using, mine in freed.items()])

    def _rest(self, seconds: float) -> None:
        self.sweeper.expect(seconds)  # what was asked for may not have been looked at
        super()._rest(seconds)


def _hand_back(held: Iterable[tuple[str, int, int]]) -> None:
    """Make these due at once for anybody: alias, id and epoch of each."""
    claimed: dict[str, list[tuple[int, int]]] = {}
    for using, pk, epoch in held:
        claimed.setdefault(using, []).append((pk, epoch))
    do_all([partial(claims.hand_back, u, claims.holder(), mine) for u, mine in claimed.items()])
