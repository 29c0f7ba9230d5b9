"""Check that calls about an object name it, where the dispatch keeps ids that the remote gives."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage

from signal_dispatch import paths
from signal_dispatch.checks.problems import Problem, where
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import uses_remote_id
from signal_dispatch.events import Event


def check_addresses(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Warn of changes that go to the whole collection, as the creation does."""
    if not uses_remote_id(dispatch) or dispatch.overrides("get_path"):
        return
    for event in (Event.UPDATED, Event.DELETED):
        template = _of_event(dispatch.path, event)
        if event in dispatch.events and isinstance(template, str) and _is_constant(template):
            method = (
                "get_method()" if dispatch.overrides("get_method") else _method(dispatch, event)
            )
            yield Problem.COLLECTION_CALLED.message(
                f"{where(dispatch, 'path')} sends {str(event)!r} with {method} to {template!r}, "
                "which is the same for all objects, though the remote's ids are kept.",
                hint="Give path a dict by event, with {remote_id} in the entries for UPDATED and "
                "DELETED; or silence this, if the body says which object is meant.",
            )


def check_delete(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Warn of one method for everything, which tells the remote of no delete."""
    if not uses_remote_id(dispatch) or dispatch.overrides("get_method"):
        return
    only = set(dispatch.events) == {Event.DELETED}
    if Event.DELETED in dispatch.events and isinstance(dispatch.method, str) and not only:
        method = dispatch.method.upper()
        if method in ("POST", "PUT", "PATCH"):
            yield Problem.DELETED_AS_CHANGE.message(
                f"{where(dispatch, 'method')} sends 'deleted' with {method}, as every other event: "
                "the remote would take it for a change, or for a new object.",
                hint='Give method a dict by event, such as {Event.CREATED: "POST", '
                f'Event.UPDATED: "{method}", Event.DELETED: "DELETE"}}; or take DELETED '
                "out of on.",
            )


def _of_event(declared: Any, event: str) -> Any:
    return declared.get(event) if isinstance(declared, Mapping) else declared


def _method(dispatch: ModelDispatch[Any], event: str) -> str:
    return str(_of_event(dispatch.method, event)).upper()


def _is_constant(template: str) -> bool:
    return not paths.variables(template)
