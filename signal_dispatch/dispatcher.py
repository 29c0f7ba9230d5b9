"""Write the deliveries of a change into the outbox, one for each object and transaction."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from django.db import connections, transaction
from django.db.models import prefetch_related_objects

from signal_dispatch import crashpoints, outbox, recording, replacing, suppression
from signal_dispatch.backends import backends
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import is_drafted_later, related_by
from signal_dispatch.events import Change, Event
from signal_dispatch.keys import key_as_text, plain_key
from signal_dispatch.merging import Entry, Key, Memory, memory_of
from signal_dispatch.models import UNFINISHED, Delivery
from signal_dispatch.plans import Plan, is_ignored, plan_of, user_code
from signal_dispatch.queueing import Recorded

_EVENTS = frozenset(Event.values)


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
    label, pk = recording.identity(dispatch, change)
    if suppression.is_object_suppressed(dispatch.name, label, plain_key(pk)):
        return []
    memory = None if alone else _memory(dispatch, change)
    if memory is None:
        plan = plan_of(dispatch, change, judge=judge, listed=listed)
        if plan is None:
            return []
        return [
            recording.insert(dispatch, change, plan, alias, look=look, alone=alone)
            for alias in plan.endpoints
        ]
    key = (dispatch.name, label, key_as_text(pk))
    entry = memory.entries.get(key) or Entry()
    if entry.deleted and change.event == Event.CREATED:
        entry = Entry()  # What comes back under a deleted key is another object.
    net = entry.net(change)
    # An update that would be ignored refreshes what was recorded before, but makes nothing new.
    ignored = net is not None and judge and is_ignored(dispatch, net)
    plan = None
    if net is not None and not (ignored and not entry.recorded):
        plan = plan_of(dispatch, net, judge=False, listed=listed)
    recorded = _merge(dispatch, change, entry, plan, insert=not ignored, look=look)
    _remember(memory, key, entry, change)
    return recorded


def record_many(
    items: Iterable[tuple[ModelDispatch[Any], Change[Any]]],
    using: str,
    *,
    alone: bool,
    judge: bool = False,
    listed: bool = True,
) -> list[Recorded]:
    """Record one event of many objects, whose rows are locked, in bulk INSERTs.

    Objects that the open transaction has changed before are merged one by one, and those are
    recorded one by one that may replace what waits. ``judge`` and ``listed`` as in ``record()``.
    """
    items = list(items)
    _fetch_together(items, using)
    singly: list[Recorded] = []
    new: dict[tuple[str, str, float], list[Delivery]] = {}
    waits: dict[tuple[str, str], float] = {}
    for dispatch, change in items:
        label, pk = recording.identity(dispatch, change)
        memory = None if alone else _memory(dispatch, change)
        key = (dispatch.name, label, key_as_text(pk))
        if _may_replace(dispatch, change) or (memory is not None and key in memory.entries):
            singly += record(dispatch, change, alone=alone, judge=judge, listed=listed)
            continue
        made = _new_deliveries(dispatch, change, judge=judge, listed=listed)
        for delivery in made:
            group = (dispatch.name, delivery.endpoint)
            if group not in waits:  # once: it may hold jitter, and each wait is an INSERT
                waits[group] = recording.wait_of(dispatch, delivery.endpoint)
                recording.is_served(delivery.endpoint)
            new.setdefault((*group, waits[group]), []).append(delivery)
        if memory is not None:
            entry = Entry(recorded={d.endpoint: Recorded(d, using) for d in made})
            _remember(memory, key, entry, change)
    for (_dispatch, _endpoint, delay), deliveries in new.items():
        recording.insert_many(deliveries, using, delay=delay, alone=alone)
    together = [Recorded(d, using) for deliveries in new.values() for d in deliveries]
    for item in together:
        recording.tell(item)
    return singly + together


def foresee(
    items: Iterable[tuple[ModelDispatch[Any], Change[Any]]], using: str, *, listed: bool = True
) -> int:
    """Count what ``record_many()`` would write of objects that nothing is open for.

    Hooks are asked as they would be there; what they write is taken back, and tells nobody.
    """
    items = list(items)
    with suppression.suppressed(), transaction.atomic(using=using):
        _fetch_together(items, using)
        plans = [_planned(d, change, judge=False, listed=listed) for d, change in items]
        transaction.set_rollback(True, using=using)
    return sum(len(plan.endpoints) for plan in plans if plan is not None)


def _may_replace(dispatch: ModelDispatch[Any], change: Change[Any]) -> bool:
    created = change.event == Event.CREATED and not dispatch.overrides("get_event")
    return dispatch.latest_wins and not created


def _fetch_together(items: Sequence[tuple[ModelDispatch[Any], Change[Any]]], using: str) -> None:
    """Fetch what payloads and paths will look up of related objects, in one query each.

    An error is left to whoever looks: there it is told.
    """
    objects: dict[ModelDispatch[Any], list[Any]] = {}
    for dispatch, change in items:
        if not is_drafted_later(dispatch, change.event):
            objects.setdefault(dispatch, []).append(change.instance)
    for dispatch, mine in objects.items():
        if len(mine) > 1:
            with suppress(Exception), user_code(using):
                prefetch_related_objects(mine, *related_by(dispatch))


def _new_deliveries(
    dispatch: ModelDispatch[Any], change: Change[Any], *, judge: bool, listed: bool
) -> list[Delivery]:
    plan = _planned(dispatch, change, judge=judge, listed=listed)
    if plan is None:
        return []
    return [recording.new_delivery(dispatch, alias, change, plan) for alias in plan.endpoints]


def _planned(
    dispatch: ModelDispatch[Any], change: Change[Any], *, judge: bool, listed: bool
) -> Plan | None:
    label, pk = recording.identity(dispatch, change)
    if suppression.is_object_suppressed(dispatch.name, label, plain_key(pk)):
        return None
    return plan_of(dispatch, change, judge=judge, listed=listed)


def announce(recorded: Iterable[Recorded], using: str, *, alone: bool) -> None:
    """Register the hint: word, once it is committed, that there is something to send."""
    connection = connections[using]
    items = [r for r in recorded if r.delivery.state in UNFINISHED and not r.rewritten]
    if not items or not backends.wants_hints:
        return
    if not (connection.in_atomic_block or connection.get_autocommit()):
        return  # With autocommit off nobody says when it commits: the rows are found later.

    def hint() -> None:
        crashpoints.reached("after_commit")
        backends.committed(items, using, fresh=alone)

    transaction.on_commit(hint, using=using, robust=not backends.under_test)


def _memory(dispatch: ModelDispatch[Any], change: Change[Any]) -> Memory | None:
    merges = dispatch.merge and change.event in _EVENTS
    return memory_of(change.using) if merges else None


def _remember(memory: Memory, key: Key, entry: Entry, change: Change[Any]) -> None:
    entry.created = entry.created or change.event == Event.CREATED
    entry.deleted = change.event == Event.DELETED
    entry.old = {**change.old, **entry.old}
    if entry.created or entry.recorded or entry.old:
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
    stale, missing, recorded = dict(entry.recorded), [], []
    for endpoint in plan.endpoints if plan else ():
        kept = stale.get(endpoint)
        if plan and kept and _rewrite(dispatch, change, kept, plan):
            recorded.append(replace(stale.pop(endpoint), rewritten=True))
        else:
            missing.append(endpoint)
    for item in stale.values():
        recorded += _withdraw(item)
    new = []
    if plan and insert:
        new = [recording.insert(dispatch, change, plan, alias, look=look) for alias in missing]
    entry.recorded.update({r.delivery.endpoint: r for r in new})
    return recorded + new


def _rewrite(dispatch: ModelDispatch[Any], change: Change[Any], kept: Recorded, plan: Plan) -> bool:
    """Let what was recorded before carry the plan; False where that can't be."""
    if plan.error or kept.delivery.state not in UNFINISHED:
        return False
    told = recording.inherited(dispatch, change, plan, kept.legacy)
    if told.error:
        return False
    recording.carry(kept.delivery, told)
    return outbox.refresh(kept.delivery, change.using)


def _withdraw(item: Recorded) -> list[Recorded]:
    """Take a delivery out again, and let those that it replaced wait as before."""
    outbox.withdraw(item.delivery, item.using)
    restored = replacing.restore(item.legacy, item.delivery, item.using)
    return [Recorded(delivery, item.using) for delivery in restored]
