"""Write the deliveries that a plan asks for into the outbox."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

from django.db import DatabaseError, transaction

from signal_dispatch import (
    incidents,
    lanes,
    outbox,
    outboxes,
    replacing,
    signals,
    suppression,
    tracing,
)
from signal_dispatch.backends import backends
from signal_dispatch.blanks import maker_of
from signal_dispatch.conf import settings
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.endpoints import endpoints
from signal_dispatch.events import Change, Event
from signal_dispatch.exceptions import PayloadError
from signal_dispatch.keys import plain_key
from signal_dispatch.models import Delivery, State, storable
from signal_dispatch.plans import Plan, redrafted
from signal_dispatch.queueing import Recorded
from signal_dispatch.replacing import Legacy

logger = logging.getLogger("signal_dispatch")

_new_delivery = maker_of(Delivery)

UNTOLD = "The remote never heard of this object, so there is nothing to take back."


def insert(
    dispatch: ModelDispatch[Any],
    change: Change[Any],
    plan: Plan,
    alias: str,
    *,
    look: bool = True,
    alone: bool = False,
) -> Recorded:
    """Write the plan's delivery to one endpoint, in the transaction that is open.

    ``look`` and ``alone`` as in ``outbox.record()``.
    """
    try:
        return _insert(dispatch, change, plan, alias, look=look, alone=alone)
    except DatabaseError as error:
        outboxes.note_missing(change.using, error)
        raise


def _insert(
    dispatch: ModelDispatch[Any],
    change: Change[Any],
    plan: Plan,
    alias: str,
    *,
    look: bool,
    alone: bool,
) -> Recorded:
    delivery = new_delivery(dispatch, alias, change, plan)
    legacy = Legacy()
    replaces = dispatch.latest_wins and look and plan.event in Event.values
    if replaces and delivery.state == State.PENDING:
        legacy = replacing.replace(delivery.lane, plan.event, change.using)
        carry(delivery, inherited(dispatch, change, plan, legacy))
    backend = backends.for_endpoint(alias, change.using)
    delay = max(wait_of(dispatch, alias), legacy.wait)
    lendable = delivery.state == State.PENDING and is_served(alias) and delay <= 0
    lease = backend.lease(change.using, alias) if lendable else None
    began = monotonic()  # the lease can't have begun earlier
    outbox.record(delivery, change.using, lease=lease, delay=delay, look=look, alone=alone)
    replacing.hand_down(legacy, delivery, change.using)
    leased = bool(delivery.epoch)
    item = Recorded(delivery, change.using, leased=leased, since=began, legacy=legacy)
    backend.remember(item)
    tell(item)
    return item


def insert_many(deliveries: Sequence[Delivery], using: str, *, delay: float, alone: bool) -> None:
    """Write new deliveries together, as ``outbox.record_many()`` does."""
    try:
        outbox.record_many(deliveries, using, delay=delay, alone=alone)
    except DatabaseError as error:
        outboxes.note_missing(using, error)
        raise


def new_delivery(
    dispatch: ModelDispatch[Any], alias: str, change: Change[Any], plan: Plan
) -> Delivery:
    """Return a delivery to one endpoint as the plan says, not written yet."""
    label, pk = identity(dispatch, change)
    environment, hops = settings.environment, suppression.current_hops()
    lane = lanes.lane_of(environment, alias, dispatch.name, label, pk) if dispatch.ordered else ""
    delivery = _new_delivery(
        environment=environment,
        dispatch=dispatch.name,
        endpoint=alias,
        model=label,
        object_pk=plain_key(pk),
        lane=lane,
        hops=hops,
        trace=tracing.current(),
    )
    carry(delivery, plan)
    if delivery.state == State.PENDING and (fault := endpoints.fault_of_key(alias)):
        if backends.under_test:
            raise PayloadError(f"{dispatch.name}: {fault}")
        _fail(delivery, "build", fault)
    if delivery.state == State.PENDING and hops >= suppression.MAX_HOPS:
        reason = (
            f"{hops} answers in a row led to this change: dispatches that answer each other. Let "
            "should_send() of one say no, or save inside of suppressed()."
        )
        _fail(delivery, "loop", reason)
    return delivery


def identity(dispatch: ModelDispatch[Any], change: Change[Any]) -> tuple[str, Any]:
    """Return the label of the dispatch's model, and the object's key in that model's table."""
    pk_name = dispatch.model._meta.pk.attname
    return dispatch.model._meta.label_lower, getattr(change.instance, pk_name)


def inherited(
    dispatch: ModelDispatch[Any], change: Change[Any], plan: Plan, legacy: Legacy
) -> Plan:
    """Return the plan for what has to be told now, after what was replaced."""
    event = legacy.event(plan.event)
    if event is None:
        return replace(plan, cancelled=UNTOLD)
    return plan if event == plan.event else redrafted(dispatch, change, plan, event)


def carry(delivery: Delivery, plan: Plan) -> None:
    """Let the delivery be what the plan says; FAILED or CANCELLED where it says so."""
    draft = plan.draft
    delivery.event, delivery.method, delivery.path = plan.event, draft.method, draft.path
    delivery.headers, delivery.body = draft.headers, draft.body
    if plan.error:
        _fail(delivery, "build", plan.error)
    elif plan.cancelled:
        delivery.state, delivery.reason = State.CANCELLED, plan.cancelled


def wait_of(dispatch: ModelDispatch[Any], alias: str) -> float:
    """Return the seconds before the first attempt."""
    endpoint = endpoints.find(alias)
    policy = dispatch.retry or (endpoint.retry if endpoint else None)
    first = (policy.delay_before(1) or 0.0) if policy else 0.0
    return max(first, float(dispatch.delay))


def is_served(alias: str) -> bool:
    """Say whether this process can send there, and warn if not: after a deploy another may."""
    if endpoints.find(alias) is not None:
        return True
    logger.warning(
        "The endpoint %r is not known here, or its entry in SIGNAL_DISPATCH_ENDPOINTS is faulty: "
        "its delivery waits. Add or correct the entry; 'manage.py check' tells of its faults.",
        alias,
        extra={"action": "endpoint_unknown", "endpoint": alias, "trace": tracing.current()},
    )
    return False


def _fail(delivery: Delivery, error_class: str, reason: str) -> None:
    delivery.state, delivery.error_class, delivery.reason = (
        State.FAILED,
        error_class,
        storable(reason)[:500],
    )


def tell(recorded: Recorded) -> None:
    """Tell the signal's receivers of a delivery that was just written."""
    if not recorded.rewritten:
        signals.delivery_enqueued.send_robust(
            sender=Delivery, delivery=recorded.delivery, using=recorded.using
        )
    if recorded.delivery.state == State.FAILED:
        transaction.on_commit(partial(_tell_failed, recorded), recorded.using, robust=True)


def _tell_failed(recorded: Recorded) -> None:
    apart = not backends.under_test
    incidents.tell_failed([recorded.delivery], recorded.using, apart=apart)
