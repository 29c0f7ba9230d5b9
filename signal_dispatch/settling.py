"""Write what became of deliveries, unless somebody else has them by now."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import connections, transaction
from django.utils import timezone

from signal_dispatch import attempt_rows, crashpoints
from signal_dispatch.databases import own_transaction
from signal_dispatch.exceptions import LeaseLost
from signal_dispatch.marks import mark_statement
from signal_dispatch.models import UNFINISHED, Attempt, Delivery, State

logger = logging.getLogger("signal_dispatch")


@dataclass(slots=True)
class Settlement:
    """What an attempt led to, ready to be written. ``delay`` in seconds, for PENDING."""

    delivery: Delivery
    state: State
    attempt: Attempt | None = None
    delay: float = 0.0
    error_class: str = ""
    reason: str = ""
    handler_tried: bool = False
    recorded: bool = False
    handler_tries: int = field(init=False)
    #: The remote asked for no attempt sooner than after so many seconds.
    after: float = 0.0
    #: Whether it was handed in before, and may be written: word of a commit can get lost.
    handed_in: bool = field(init=False, default=False)
    #: A delivery that is recorded in the same transaction, in this one's place.
    successor: Delivery | None = None
    #: What a hook raised. It is told in ``reason`` too; a test wants the error itself.
    hook_error: Exception | None = None
    #: What is kept of the body from now on; None where that is all of it.
    masked: bytes | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        # Taken once: apply() changes the delivery that they are counted from.
        self.handler_tries = self.delivery.handler_tries + int(self.handler_tried)

    @property
    def attempts(self) -> int:
        """The number of attempts that were made, this one included."""
        return self.attempt.number if self.attempt else self.delivery.attempts

    @property
    def retried(self) -> bool:
        """Whether what comes is no first attempt."""
        return self.delivery.retried or (self.attempt is not None and not self.finished)

    @property
    def finished(self) -> bool:
        """Whether the delivery's lane can go on."""
        return self.state not in UNFINISHED

    def apply(self) -> None:
        """Let the delivery in memory show what was written."""
        delivery, attempt = self.delivery, self.attempt
        delivery.state, delivery.held_by = self.state, ""
        now = timezone.now()  # near enough to the database's clock
        delivery.finished_at = now if self.finished else None
        delivery.available_at = None if self.finished else now + timedelta(seconds=self.delay)
        delivery.error_class, delivery.reason = self.error_class, self.reason[:500]
        delivery.handler_tries = self.handler_tries
        if self.masked is not None:
            delivery.body = self.masked
        delivery.retried = self.retried
        if attempt is not None:
            delivery.attempts = attempt.number
            delivery.last_status = attempt.status_code
            delivery.last_duration_ms = attempt.duration_ms


def settle(settlements: Sequence[Settlement], using: str) -> list[Settlement]:
    """Write what became of deliveries in one short transaction, and return what was accepted.

    One whose lease somebody else has by now is left out: only its attempt is put on record. So
    is one that is finished otherwise: its commit took place, and word of that was lost.
    """
    crashpoints.reached("before_settling")
    again = any(s.handed_in for s in settlements)
    for settlement in settlements:
        settlement.handed_in = True
    with own_transaction(using):
        accepted, existing, changed = _mark(settlements, using)
        attempts = [s.attempt for s in settlements if s.attempt and s.delivery.pk in existing]
        if changed < len(settlements) or again:
            attempts = _not_on_record(attempts, using)
        attempt_rows.insert(attempts, using)
    if any(s.handler_tried for s in accepted):
        crashpoints.reached("after_answer_stored")
    if any(s.finished for s in accepted):
        crashpoints.reached("after_mark")
    return accepted


def settle_with(settlement: Settlement, using: str, work: Callable[[], None]) -> None:
    """Run the work and mark the delivery in one transaction, the mark last.

    The other order deadlocks with a saver, who takes the object's row before the outbox's.
    Raises ``LeaseLost``, and undoes the work, where somebody else has the lease by now.
    """
    committed = False

    def note() -> None:
        nonlocal committed
        committed = True

    try:
        with own_transaction(using):
            # The first hook of the commit, so that it runs whatever the others do.
            transaction.on_commit(note, using=using)
            work()
            crashpoints.reached("before_settling")
            _mark_alone(settlement, using)
    except Exception:
        if not committed:
            raise
        logger.exception(
            "A commit hook of the site failed. Delivery %s is settled all the same.",
            settlement.delivery,
            extra=settlement.delivery.log_extra("commit_hook_failed"),
        )
    crashpoints.reached("after_mark")


def _mark_alone(settlement: Settlement, using: str) -> None:
    accepted, existing, _changed = _mark([settlement], using)
    if not accepted and existing:
        raise LeaseLost(f"Delivery {settlement.delivery.pk} is held by another process now.")
    # Where the work deleted the delivery, there is nothing left to write.
    if accepted and settlement.attempt is not None:
        attempt_rows.insert([settlement.attempt], using)


def _not_on_record(attempts: Sequence[Attempt], using: str) -> list[Attempt]:
    """Leave out what an earlier try wrote: its commit took place, and word of that was lost."""
    ids = {attempt.delivery_id for attempt in attempts}
    rows = Attempt.objects.using(using).filter(delivery_id__in=ids)
    known = set(rows.values_list("delivery_id", "number", "sender", "started_at"))
    return [a for a in attempts if (a.delivery_id, a.number, a.sender, a.started_at) not in known]


def _mark(settlements: Sequence[Settlement], using: str) -> tuple[list[Settlement], set[int], int]:
    """Return what is accepted, which deliveries exist, and how many rows were written just now."""
    ordered = sorted(settlements, key=lambda s: s.delivery.pk)
    ids = [s.delivery.pk for s in ordered]
    sql, parameters = mark_statement(ordered, using)
    with connections[using].cursor() as cursor:
        cursor.execute(sql, parameters)
        changed = cursor.rowcount
    if changed == len(ids):
        return list(ordered), set(ids), changed
    rows = Delivery.objects.using(using).filter(pk__in=ids).values_list("pk", "epoch", "state")
    found = {pk: (epoch, state) for pk, epoch, state in rows}
    accepted = [s for s in ordered if found.get(s.delivery.pk) == (s.delivery.epoch, s.state)]
    return accepted, set(found), changed


def freeze(delivery: Delivery, using: str, **values: Any) -> None:
    """Write what is settled before the first attempt, such as a path with the remote's id.

    Raises ``LeaseLost`` where somebody else has the lease by now.
    """
    rows = Delivery.objects.using(using).filter(pk=delivery.pk, epoch=delivery.epoch)
    if not rows.update(**values):
        raise LeaseLost(f"Delivery {delivery.pk} is held by another process now.")
    for name, value in values.items():
        setattr(delivery, name, value)


def kept_answer(delivery: Delivery, using: str) -> Attempt | None:
    """Return the last attempt that brought an answer."""
    attempts: Iterable[Attempt] = Attempt.objects.using(using).filter(
        delivery_id=delivery.pk, status_code__isnull=False
    )
    return max(attempts, key=lambda a: a.number, default=None)
