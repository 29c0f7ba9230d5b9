"""Say what an attempt leads to: another one, or the end."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import Error
from django.utils import timezone

from signal_dispatch import (
    incidents,
    recreating,
    remote_ids,
    settling,
    signals,
    suppression,
    tracing,
)
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import Endpoint
from signal_dispatch.events import Event
from signal_dispatch.exceptions import EndpointNotMocked, LeaseLost
from signal_dispatch.models import Attempt, Delivery, State, storable
from signal_dispatch.outcomes import Outcome, OutcomeKind
from signal_dispatch.registry import registry
from signal_dispatch.retries import RetryPolicy
from signal_dispatch.settling import Settlement

logger = logging.getLogger("signal_dispatch")

#: Seconds before a delivery is tried again that the database kept from being tried.
INTERNAL_DELAY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Case:
    """One delivery in hand. ``raising``: errors of hooks are the caller's, as in tests."""

    delivery: Delivery
    using: str
    dispatch: ModelDispatch[Any]
    endpoint: Endpoint
    raising: bool

    def hook(self, work: Callable[[], None]) -> Callable[[], None]:
        """Return ``work`` as a hook runs: its own changes of the object make no delivery."""

        def run() -> None:
            delivery = self.delivery
            running = suppression.running_hook(
                self.dispatch.name, delivery.model, delivery.object_pk, delivery.hops
            )
            with running, tracing.traced(delivery.trace):
                try:
                    work()
                except SystemExit as error:  # it would end this thread, not the process
                    raise RuntimeError("it called sys.exit()") from error

        return run

    def wait_before(self, attempt: int) -> float | None:
        """Return the seconds to wait before that attempt; None when there is none left."""
        policy = self.dispatch.retry or self.endpoint.retry
        return policy.delay_before(attempt)


def concluded(case: Case, outcome: Outcome, attempt: Attempt | None) -> Settlement:
    """Retry or give up, as the outcome and the policy say."""
    settlement = Settlement(
        case.delivery, State.FAILED, attempt, error_class=outcome.error_class, reason=outcome.reason
    )
    if attempt is not None:
        attempt.outcome, attempt.error_class = outcome.kind, outcome.error_class
        attempt.error = outcome.reason
    else:  # a kept answer that says "not now" is not looked at again: the next try is a call
        settlement.handler_tries = 0
    if outcome.kind == OutcomeKind.RECREATE:
        return _recreated(case, settlement)
    delay = case.wait_before(settlement.attempts + 1)
    if outcome.kind == OutcomeKind.REJECTED or delay is None:
        return failed(case, settlement)
    settlement.after = outcome.after or 0.0
    settlement.state, settlement.delay = State.PENDING, max(delay, settlement.after)
    return settlement


def _recreated(case: Case, settlement: Settlement) -> Settlement:
    """Give up the delivery, and let another one create the object anew in its place."""
    delivery, using = case.delivery, case.using
    if delivery.event == Event.DELETED:  # what was wanted has come to pass
        settlement.state, settlement.reason = State.CANCELLED, recreating.GONE_THERE
        return _settled_with(case, settlement, lambda: remote_ids.forget_id(delivery, using))
    settlement.error_class, settlement.reason = "lost", recreating.AGAIN
    if settlement.attempt is not None:
        settlement.attempt.error_class = "lost"
    if recreating.is_repeated(delivery, using):
        return failed(case, settlement)
    successor = recreating.successor_of(case.dispatch, delivery, using, raising=case.raising)
    settlement.reason = recreating.ANEW if successor else recreating.GONE
    if successor is None:
        return failed(case, settlement, lambda: remote_ids.forget_id(delivery, using))
    settlement.successor = successor
    return failed(case, settlement, lambda: recreating.put_first(successor, delivery, using))


def failed(
    case: Case, settlement: Settlement, work: Callable[[], None] | None = None
) -> Settlement:
    """Call ``handle_failure`` in one transaction with the mark FAILED, where there is one.

    ``work`` of the package's own is done in the same transaction, whatever the hook does.
    """
    if case.dispatch.overrides("handle_failure"):
        settlement.apply()  # so that the hook sees how it ended
        try:
            return _settled_with(case, settlement, work, _handle_failure(case, settlement))
        except Exception as error:
            if case.raising:
                raise
            logger.exception(
                "%s: handle_failure() raised for delivery %s. It is not called again.",
                case.dispatch.name,
                case.delivery.pk,
                extra=case.delivery.log_extra("handler_failed"),
            )
            settlement.hook_error = error
            settlement.reason += f" Then handle_failure() raised {type(error).__name__}: {error}"
    return settlement if work is None else _settled_with(case, settlement, work)


def _handle_failure(case: Case, settlement: Settlement) -> Callable[[], None]:
    return case.hook(lambda: case.dispatch.handle_failure(case.delivery, settlement.attempt))


def _settled_with(
    case: Case, settlement: Settlement, *steps: Callable[[], None] | None
) -> Settlement:
    def work() -> None:
        for step in filter(None, steps):
            step()

    try:
        settling.settle_with(settlement, case.using, work)
    except LeaseLost:
        return settlement  # refused again when it is written, but its attempt goes on record
    settlement.recorded = True
    return settlement


def broken(delivery: Delivery, using: str, error: BaseException, *, sender_name: str) -> Settlement:
    """Return what becomes of a delivery that broke the code around its attempt.

    It counts as an attempt, otherwise the same call might be made for ever. Where the database
    kept it from being tried, no call was made, and none of its attempts is used up.
    """
    if isinstance(error, Error | EndpointNotMocked):
        return Settlement(
            delivery,
            State.PENDING,
            delay=INTERNAL_DELAY_SECONDS,
            error_class="internal",
            reason=f"{type(error).__name__}: {error}",
        )
    reason = storable(f"{type(error).__name__}: {error}")
    attempt = Attempt(
        delivery=delivery,
        number=delivery.attempts + 1,
        started_at=timezone.now(),
        outcome=OutcomeKind.RETRY,
        error_class="internal",
        error=reason,
        sender=sender_name,
    )
    dispatch = registry.find(delivery.dispatch, delivery.model)
    endpoint = endpoints.find(delivery.endpoint)
    chosen = dispatch.retry if dispatch else None
    policy = chosen or (endpoint.retry if endpoint else RetryPolicy())
    delay = policy.delay_before(attempt.number + 1)
    state = State.FAILED if delay is None else State.PENDING
    settlement = Settlement(
        delivery, state, attempt, delay=delay or 0.0, error_class="internal", reason=reason
    )
    if state == State.FAILED and dispatch and endpoint:
        return failed(Case(delivery, using, dispatch, endpoint, raising=False), settlement)
    return settlement


def tell(settlements: Sequence[Settlement], using: str, *, apart: bool = True) -> None:
    """Tell the signals' receivers what is recorded now, and let the deliveries show it.

    ``apart``: those of alarms in a thread of their own.
    """
    for settlement in settlements:
        delivery, attempt = settlement.delivery, settlement.attempt
        settlement.apply()
        if attempt is not None:
            signals.attempt_finished.send_robust(
                sender=Delivery, delivery=delivery, attempt=attempt, using=using
            )
        if settlement.successor is not None:
            signals.delivery_enqueued.send_robust(
                sender=Delivery, delivery=settlement.successor, using=using
            )
        if settlement.state == State.FAILED:
            logger.warning(
                "Delivery %s is failed for good. %s",
                delivery,
                settlement.reason,
                extra=delivery.log_extra("delivery_failed"),
            )
        if settlement.finished:
            signals.delivery_finished.send_robust(sender=Delivery, delivery=delivery, using=using)
    # What another one makes good did not fail for good.
    lone = [s.delivery for s in settlements if s.successor is None]
    incidents.tell_failed(lone, using, apart=apart)
