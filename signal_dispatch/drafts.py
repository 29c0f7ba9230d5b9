"""Draft the request of a delivery: method, path, headers and body, taken from the instance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Model

from signal_dispatch import lookups, paths
from signal_dispatch.declarations import BODILESS_METHODS, ModelDispatch
from signal_dispatch.events import Change
from signal_dispatch.exceptions import PathError, PayloadError

REMOTE_ID = "remote_id"


@dataclass(frozen=True, slots=True)
class Draft:
    """What a delivery will carry, whichever endpoint it goes to."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def draft(dispatch: ModelDispatch[Any], change: Change[Any]) -> Draft:
    """Ask the dispatch for everything that a call carries.

    Raises ``PathError``, ``PayloadError``, or whatever the site's own hooks raise.
    """
    instance = change.instance
    method = dispatch.get_method(instance, change).upper()
    path = draft_path(dispatch, change)
    headers = {name: str(value) for name, value in dispatch.get_headers(instance, change).items()}
    if method in BODILESS_METHODS and not dispatch.overrides("get_payload"):
        return Draft(method, path, headers, b"")
    payload = dispatch.get_payload(instance, change)
    if payload is None:
        return Draft(method, path, headers, b"")
    body, content_type = dispatch.encode(payload)
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = content_type
    return Draft(method, path, headers, body)


def draft_path(dispatch: ModelDispatch[Any], change: Change[Any]) -> str:
    """Expand the path's template, all but ``{remote_id}``: that is known when it is sent."""
    template = dispatch.get_path(change.instance, change)
    kept = frozenset({REMOTE_ID}) if uses_remote_id(dispatch) else frozenset()
    given = dispatch.get_path_values(change.instance, change)
    values = _path_values(change.instance, template, given, kept)
    return paths.expand(template, values, keep=kept)


def uses_remote_id(dispatch: ModelDispatch[Any]) -> bool:
    """Say whether the dispatch keeps ids that the remote gives out."""
    return bool(dispatch.remote_id) or dispatch.overrides("get_remote_id")


def _path_values(
    instance: Model, template: str, given: Mapping[str, Any], kept: frozenset[str]
) -> dict[str, Any]:
    values = dict(given)
    for name in paths.variables(template):
        if name not in values and name not in kept:
            try:
                values[name] = lookups.resolve(instance, name)
            except PayloadError as error:
                raise PathError(f"The path {template!r}: {error}") from error
    return values
