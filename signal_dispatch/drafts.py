"""Draft the request of a delivery: method, path, headers and body, taken from the instance."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Model

from signal_dispatch import envelopes, lookups, paths
from signal_dispatch.declarations import BODILESS_METHODS, ModelDispatch
from signal_dispatch.events import Change, Event
from signal_dispatch.exceptions import PathError, PayloadError, SignalDispatchError
from signal_dispatch.models import Delivery, storable

#: How Python tells of a call that could not be made.
_CALLED = re.compile(r"(?:[\w<>]+\.)*(\w+)\(\) ")

REMOTE_ID = "remote_id"

# RFC 9110, 5.6.2 and 5.5: what is not of these, requests or the remote refuses at each attempt.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD_VALUE = re.compile(r"([\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")


@dataclass(frozen=True, slots=True)
class Draft:
    """What a delivery will carry, whichever endpoint it goes to."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


def draft(
    dispatch: ModelDispatch[Any], change: Change[Any], *, at: datetime | None = None
) -> Draft:
    """Ask the dispatch for everything that a call carries.

    ``at`` is when the change happened, unless that is now. Raises ``PathError``,
    ``PayloadError``, or whatever the site's own hooks raise.
    """
    instance = change.instance
    method = draft_method(dispatch, change)
    path = draft_path(dispatch, change)
    headers = _headers(dispatch.get_headers(instance, change))
    if method in BODILESS_METHODS and not dispatch.overrides("get_payload"):
        return Draft(method, path, headers, b"")
    payload = dispatch.get_payload(instance, change)
    if payload is None:
        return Draft(method, path, headers, b"")
    if dispatch.envelope == "standard":
        payload = envelopes.wrap(payload, _model_name(dispatch), change.event, at)
    body, content_type = dispatch.encode(payload)
    if not isinstance(body, bytes):
        raise PayloadError(f"encode() returned {type(body).__name__} where bytes are needed.")
    if not any(name.lower() == "content-type" for name in headers):
        headers |= _headers({"Content-Type": content_type})
    return Draft(method, path, headers, body)


def retyped(dispatch: ModelDispatch[Any], body: bytes, event: str, now: str) -> bytes:
    """Return the body for a delivery that is told as another event than it was drafted for."""
    if dispatch.envelope != "standard":
        return body
    return envelopes.retyped(body, _model_name(dispatch), event, now)


def _model_name(dispatch: ModelDispatch[Any]) -> str:
    return str(dispatch.model._meta.model_name)


def is_drafted_later(dispatch: ModelDispatch[Any], event: str) -> bool:
    """Say whether the call is drafted at its first attempt. What is deleted can't be read then."""
    return dispatch.snapshot == "send" and event != Event.DELETED


def draft_method(dispatch: ModelDispatch[Any], change: Change[Any]) -> str:
    """Return the HTTP method of the change, in capitals."""
    method: Any = dispatch.get_method(change.instance, change)
    if not isinstance(method, str) or not _TOKEN.fullmatch(method):
        raise PayloadError(f"get_method() returned {method!r}, which is no HTTP method.")
    return short(method.upper(), "method", "get_method()")


def short(text: str, column: str, source: str) -> str:
    """Return the text if it fits into a column of the outbox; raises ``PayloadError``."""
    most = getattr(Delivery._meta.get_field(column), "max_length", 0)
    if len(text) > most or storable(text) != text:
        raise PayloadError(f"{source} gave {text[:60]!r}: at most {most} plain characters fit.")
    return text


def _headers(given: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers as text; refuses now what would never leave (RFC 9110, 5.5)."""
    if not isinstance(given, Mapping):
        raise PayloadError(f"get_headers() returned {given!r}, which is no dict.")
    headers = {str(name): str(value) for name, value in given.items()}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not _FIELD_VALUE.fullmatch(value):
            raise PayloadError(
                f"The header {name!r} can't be sent: {value!r}. A name has no spaces, and a value "
                "is one line of Latin-1 without spaces around it."
            )
    return headers


def draft_path(dispatch: ModelDispatch[Any], change: Change[Any]) -> str:
    """Expand the path's template, all but ``{remote_id}``: that is known when it is sent."""
    template = dispatch.get_path(change.instance, change)
    if not isinstance(template, str):
        raise PathError(f"get_path() returned {template!r}, which is no path.")
    kept = frozenset({REMOTE_ID}) if uses_remote_id(dispatch) else frozenset()
    given = dispatch.get_path_values(change.instance, change)
    if not isinstance(given, Mapping):
        raise PathError(f"get_path_values() returned {given!r}, which is no dict.")
    values = _path_values(dispatch.model, change.instance, template, given, kept)
    return paths.expand(template, values, keep=kept)


def uses_remote_id(dispatch: ModelDispatch[Any]) -> bool:
    """Say whether the dispatch keeps ids that the remote gives out."""
    return bool(dispatch.remote_id) or dispatch.overrides("get_remote_id")


def related_by(dispatch: ModelDispatch[Any]) -> list[str]:
    """Return the relations to one object each that payload and path follow as they are declared."""
    names = list(dispatch.fields or ()) if not dispatch.overrides("get_payload") else []
    templates = dispatch.path.values() if isinstance(dispatch.path, Mapping) else [dispatch.path]
    for template in templates if not dispatch.overrides("get_path") else ():
        names += paths.variables(template)
    found = (lookups.relations_of(dispatch.model, name) for name in names)
    return sorted({relation for relation in found if relation})


def _path_values(
    model: type[Model],
    instance: Model,
    template: str,
    given: Mapping[str, Any],
    kept: frozenset[str],
) -> dict[str, Any]:
    values = dict(given)
    for name in paths.variables(template):
        if name not in values and name not in kept:
            try:
                values[name] = lookups.resolve(instance, name, model=model)
            except PayloadError as error:
                raise PathError(f"The path {template!r}: {error}") from error
    return values


def sentence_of(dispatch: ModelDispatch[Any], error: Exception) -> str:
    """Say which hook of which dispatch failed, and how."""
    if isinstance(error, SignalDispatchError):
        return f"{dispatch.name}: {error}"
    hook = "the payload"
    trace = error.__traceback__
    while trace is not None:
        name = trace.tb_frame.f_code.co_name
        if trace.tb_frame.f_locals.get("self") is dispatch and _is_hook(dispatch, name):
            hook = f"{name}()"
            break
        trace = trace.tb_next
    called = _CALLED.match(str(error)) if isinstance(error, TypeError) else None
    if called and _is_hook(dispatch, called[1]):  # a call that failed has no frame of the hook
        hook = f"{called[1]}()"
    return f"{dispatch.name}: {hook} raised {type(error).__name__}: {error}"


def _is_hook(dispatch: ModelDispatch[Any], name: str) -> bool:
    return hasattr(ModelDispatch, name) and dispatch.overrides(name)
