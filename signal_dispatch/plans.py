"""Ask a dispatch about a change: is it told, to whom, and what does the call carry?"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from django.db import connections

from signal_dispatch import tracing
from signal_dispatch.backends import backends
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import Draft, draft, is_drafted_later, sentence_of, short
from signal_dispatch.endpoints import endpoints
from signal_dispatch.events import Change, Event
from signal_dispatch.exceptions import PayloadError

logger = logging.getLogger("signal_dispatch")

_EMPTY = Draft("", "", {}, b"")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be recorded for one change: the same draft for each endpoint.

    ``error`` says why it could not be built, ``cancelled`` why there is nothing to be sent.
    """

    event: str
    endpoints: tuple[str, ...]
    draft: Draft
    error: str = ""
    cancelled: str = ""


def is_ignored(dispatch: ModelDispatch[Any], change: Change[Any]) -> bool:
    """Say whether ``when_changed`` makes this update no event."""
    if change.event != Event.UPDATED or not dispatch.when_changed:
        return False
    # What is not known did not stand there a moment ago: then it has changed.
    return all(name in change.old and not change.changed(name) for name in dispatch.when_changed)


def plan_of(
    dispatch: ModelDispatch[Any],
    change: Change[Any],
    *,
    judge: bool = True,
    listed: bool = True,
    foreseen: bool = False,
) -> Plan | None:
    """Ask the dispatch in the order of the contract; None where there is nothing to send.

    ``foreseen`` says that it will not be recorded: then what raises is not logged.
    """
    if (listed and change.event not in dispatch.events) or (judge and is_ignored(dispatch, change)):
        return None
    event = change.event
    aliases: tuple[str, ...] = (dispatch.endpoint,)
    try:
        with user_code(change.using):
            asked = dispatch.get_event(change.instance, change)
            if asked is None:
                return None
            event = short(str(asked), "event", "get_event()")
            if event != change.event:
                change = replace(change, event=event)
            if not dispatch.should_send(change.instance, change):
                return None
            aliases = _enabled(_aliases(dispatch.get_endpoint(change.instance, change)))
            return Plan(event, aliases, _draft_now(dispatch, change)) if aliases else None
    except Exception as error:
        if backends.under_test:
            raise
        if not foreseen:
            _log(dispatch, change, error)
        return Plan(event, _enabled(aliases), _EMPTY, sentence_of(dispatch, error))


def redrafted(
    dispatch: ModelDispatch[Any],
    change: Change[Any],
    plan: Plan,
    event: str,
    *,
    foreseen: bool = False,
) -> Plan:
    """Return the plan with a draft for this event; nothing else is asked anew.

    ``foreseen`` drafts now what would be drafted at the first attempt, and logs nothing.
    """
    change = replace(change, event=event)
    try:
        with user_code(change.using):
            made = draft(dispatch, change) if foreseen else _draft_now(dispatch, change)
            return replace(plan, event=event, draft=made)
    except Exception as error:
        if backends.under_test:
            raise
        if not foreseen:
            _log(dispatch, change, error)
        return replace(plan, event=event, draft=_EMPTY, error=sentence_of(dispatch, error))


def _draft_now(dispatch: ModelDispatch[Any], change: Change[Any]) -> Draft:
    """Draft the call, unless that is for the first attempt to do."""
    return _EMPTY if is_drafted_later(dispatch, change.event) else draft(dispatch, change)


@contextmanager
def user_code(using: str) -> Iterator[None]:
    """Keep the save whole if a hook's query fails; costs nothing while hooks make no query.

    PostgreSQL refuses everything after a failed statement until a savepoint is rolled back. It is
    a low-level one, because the hook's first query may stand in the middle of an ``atomic`` of
    its own, which must not be entwined with another.
    """
    connection = connections[using]
    savepoint: str | None = None
    hooks = 0

    def begin_first(execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        nonlocal savepoint, hooks
        if savepoint is None:
            savepoint = ""  # the statement that makes it comes here, too
            hooks = len(connection.run_on_commit)
            savepoint = connection.savepoint()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(begin_first):
        try:
            yield
        except BaseException:
            if savepoint:
                connection.needs_rollback = False
                connection.savepoint_rollback(savepoint)
                del connection.run_on_commit[hooks:]
            raise
        if savepoint:
            connection.savepoint_commit(savepoint)


def _aliases(answer: str | Iterable[str] | None) -> tuple[str, ...]:
    if answer is None:
        return ()
    named = (answer,) if isinstance(answer, str) else tuple(dict.fromkeys(answer))
    for alias in named:
        if not isinstance(alias, str):
            raise PayloadError(f"get_endpoint() named {alias!r}, which is no alias.")
        short(alias, "endpoint", "get_endpoint()")
    return named


def _enabled(aliases: Iterable[str]) -> tuple[str, ...]:
    found = ((alias, endpoints.entry(alias)) for alias in aliases)
    return tuple(alias for alias, entry in found if entry is None or entry.enabled)


def _log(dispatch: ModelDispatch[Any], change: Change[Any], error: Exception) -> None:
    logger.error(
        "%s could not build its call for %s %s (%r). Correct what raised, then run 'manage.py "
        "dispatch_retry'.",
        dispatch.name,
        change.instance._meta.label,
        change.instance.pk,
        str(change.event),
        exc_info=error,
        extra={
            "action": "build_failed",
            "dispatch": dispatch.name,
            "trace": tracing.current(),
        },
    )
