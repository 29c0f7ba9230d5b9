"""Write the deliveries of a change into the outbox, one for each object and transaction."""

import logging
from collections.abc import Iterable
from time import monotonic
from typing import Any

from django.db import connections, transaction

from signal_dispatch import lanes, outbox, signals, suppression
from signal_dispatch.backends import backends
from signal_dispatch.conf import settings
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import Draft
from signal_dispatch.endpoints import endpoints
from signal_dispatch.events import Change, Event
from signal_dispatch.merging import Entry, Key, Memory, memory_of
from signal_dispatch.models import Delivery, State, key_as_text, plain_key, storable
from signal_dispatch.plans import Plan, is_ignored, plan_of
from signal_dispatch.queueing import Recorded

logger = logging.getLogger("signal_dispatch")


def record(
    dispatch: ModelDispatch[Any],
    change: Change[Any],
    *,
    alone: bool = False,
    look: bool = True,
    judge: bool = True,
    listed: bool = True,
) -> list[Recorded]:
    """Record the deliveries of a change in the transaction that is open.

    ``alone`` says that the change is the only one of its transaction, so there is nothing to
    merge with; ``look=False`` that its lane must be empty; ``judge=False`` spares it
    ``when_changed``, ``listed=False`` spares it ``on``. Returns what was written.
    """
    label, pk = _identity(dispatch, change)
    if suppression.is_object_suppressed(dispatch.name, label, plain_key(pk)):
        return []
    memory = None if alone else _memory(dispatch, change)
    if memory is None:
        plan = plan_of(dispatch, change, judge=judge, listed=listed)
        return _insert_all(dispatch, change, plan, plan.endpoints, look=look) if plan else []
    key = (dispatch.name, label, key_as_text(pk))
    entry = memory.entries.get(key) or Entry()
    if entry.deleted and change.event == Event.CREATED:
        entry = Entry()  # What comes back under a deleted key is another object.
    net = entry.net(change)
    # An update that would be ignored refreshes what was recorded before, but makes nothing new.
    ignored = net is not None and judge and is_ignored(dispatch, net)
    plan = None
    if net is not None and not (ignored and not entry.deliveries):
        plan = plan_of(dispatch, net, judge=False, listed=listed)
    recorded = _merge(dispatch, change, entry, plan, insert=not ignored, look=look)
    _remember(memory, key, entry, change)
    return recorded


def record_many(
    items: Iterable[tuple[ModelDispatch[Any], Change[Any]]],
    using: str,
    *,
    alone: bool,
    listed: bool = True,
) -> list[Recorded]:
    """Record one event of many objects, whose rows are locked, in bulk INSERTs.

    Objects that the open transaction has changed before are merged one by one.
    """
    recorded: list[Recorded] = []
    new: dict[tuple[str, float], list[Delivery]] = {}
    for dispatch, change in items:
        label, pk = _identity(dispatch, change)
        memory = None if alone else _memory(dispatch, change)
        key = (dispatch.name, label, key_as_text(pk))
        if memory is not None and key in memory.entries:
            recorded += record(dispatch, change, judge=False, listed=listed)
            continue
        if suppression.is_object_suppressed(dispatch.name, label, plain_key(pk)):
            continue
        plan = plan_of(dispatch, change, judge=False, listed=listed)
        made = [_new_delivery(dispatch, a, change, plan) for a in plan.endpoints] if plan else []
        for delivery in made:
            wait = _wait(dispatch, delivery.endpoint)
            new.setdefault((delivery.endpoint, wait), []).append(delivery)
        if memory is not None and made:
            memory.entries[key] = Entry(deliveries={d.endpoint: d for d in made})
    for (_endpoint, delay), deliveries in new.items():
        outbox.record_many(deliveries, using, delay=delay)
        recorded += [Recorded(d, using) for d in deliveries]
    for item in recorded:
        _tell(item)
    return recorded


def announce(recorded: Iterable[Recorded], using: str, *, alone: bool) -> None:
    """Register the hint: word, once it is committed, that there is something to send."""
    connection = connections[using]
    items = [r for r in recorded if r.delivery.state != State.FAILED and not r.rewritten]
    if not items or not backends.wants_hints:
        return
    if not (connection.in_atomic_block or connection.get_autocommit()):
        return  # With autocommit off nobody says when it commits: the rows are found later.

    def hint() -> None:
        backends.committed(items, using, fresh=alone)

    transaction.on_commit(hint, using=using, robust=not backends.under_test)


def _identity(dispatch: ModelDispatch[Any], change: Change[Any]) -> tuple[str, Any]:
    """Return the label of the dispatch's model, and the object's key in that model's table."""
    pk_name = dispatch.model._meta.pk.attname
    return dispatch.model._meta.label_lower, getattr(change.instance, pk_name)


def _memory(dispatch: ModelDispatch[Any], change: Change[Any]) -> Memory | None:
    merges = dispatch.merge and change.event in Event.values
    return memory_of(change.using) if merges else None


def _remember(memory: Memory, key: Key, entry: Entry, change: Change[Any]) -> None:
    entry.created = entry.created or change.event == Event.CREATED
    entry.deleted = change.event == Event.DELETED
    entry.old = {**change.old, **entry.old}
    if entry.created or entry.deliveries or entry.old:
        memory.entries[key] = entry
    else:
        memory.entries.pop(key, None)


def _merge(
    dispatch: ModelDispatch[Any],
    change: Change[Any],
    entry: Entry,
    plan: Plan | None,
    *,
    insert: bool,
    look: bool,
) -> list[Recorded]:
    """Make the transaction's deliveries of an object what the plan for the net change says."""
    stale, missing, recorded = dict(entry.deliveries), [], []
    for endpoint in plan.endpoints if plan else ():
        kept = stale.get(endpoint)
        if plan and kept and _rewrite(kept, plan, change.using):
            recorded.append(_rewritten(stale.pop(endpoint), change.using))
        else:
            missing.append(endpoint)
    for delivery in stale.values():
        outbox.withdraw(delivery, change.using)
    new = _insert_all(dispatch, change, plan, missing, look=look) if plan and insert else []
    entry.deliveries.update({r.delivery.endpoint: r.delivery for r in new})
    return recorded + new


def _rewritten(delivery: Delivery, using: str) -> Recorded:
    return Recorded(delivery, using, rewritten=True)


def _rewrite(delivery: Delivery, plan: Plan, using: str) -> bool:
    if plan.error or delivery.state == State.FAILED:
        return False
    delivery.event = plan.event
    _carry(delivery, plan.draft)
    return outbox.refresh(delivery, using)


def _insert_all(
    dispatch: ModelDispatch[Any],
    change: Change[Any],
    plan: Plan,
    aliases: Iterable[str],
    *,
    look: bool = True,
) -> list[Recorded]:
    recorded = []
    for alias in aliases:
        delivery = _new_delivery(dispatch, alias, change, plan)
        backend = backends.for_endpoint(alias, change.using)
        delay = _wait(dispatch, alias)
        lendable = delivery.state == State.PENDING and delay <= 0 and _is_served(alias)
        lease = backend.lease(change.using) if lendable else None
        began = monotonic()  # the lease can't have begun earlier
        outbox.record(delivery, change.using, lease=lease, delay=delay, look=look)
        leased = lease is not None and delivery.state == State.PENDING
        item = Recorded(delivery, change.using, leased=leased, since=began)
        backend.remember(item)
        recorded.append(item)
        _tell(item)
    return recorded


def _new_delivery(
    dispatch: ModelDispatch[Any], alias: str, change: Change[Any], plan: Plan
) -> Delivery:
    label, pk = _identity(dispatch, change)
    environment, hops = settings.environment, suppression.current_hops()
    lane = lanes.lane_of(environment, alias, dispatch.name, label, pk) if dispatch.ordered else ""
    delivery = Delivery(
        environment=environment,
        dispatch=dispatch.name,
        endpoint=alias,
        event=plan.event,
        model=label,
        object_pk=plain_key(pk),
        lane=lane,
        hops=hops,
    )
    _carry(delivery, plan.draft)
    if plan.error:
        _fail(delivery, "build", plan.error)
    elif hops >= suppression.MAX_HOPS:
        reason = f"{hops} answers in a row led to this change: dispatches that answer each other."
        _fail(delivery, "loop", reason)
    return delivery


def _wait(dispatch: ModelDispatch[Any], alias: str) -> float:
    endpoint = endpoints.find(alias)
    policy = dispatch.retry or (endpoint.retry if endpoint else None)
    return (policy.delay_before(1) or 0.0) if policy else 0.0


def _is_served(alias: str) -> bool:
    """Say whether this process can send there; another one, after a deploy, may."""
    if endpoints.find(alias) is not None:
        return True
    logger.warning(
        "The endpoint %r is not known here, or its settings are faulty: its delivery waits.",
        alias,
        extra={"action": "endpoint_unknown", "endpoint": alias},
    )
    return False


def _carry(delivery: Delivery, draft: Draft) -> None:
    delivery.method, delivery.path = draft.method, draft.path
    delivery.headers, delivery.body = draft.headers, draft.body


def _fail(delivery: Delivery, error_class: str, reason: str) -> None:
    delivery.state, delivery.error_class, delivery.reason = (
        State.FAILED,
        error_class,
        storable(reason)[:500],
    )


def _tell(recorded: Recorded) -> None:
    if not recorded.rewritten:
        signals.delivery_enqueued.send_robust(
            sender=Delivery, delivery=recorded.delivery, using=recorded.using
        )
