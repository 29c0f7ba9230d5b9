"""Check what a call is made of, and who makes it."""

from collections.abc import Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage

from signal_dispatch import paths
from signal_dispatch.checks.names import is_list_of_names
from signal_dispatch.checks.problems import Problem, choice, where
from signal_dispatch.conf import settings
from signal_dispatch.declarations import BODILESS_METHODS, ModelDispatch
from signal_dispatch.entries import SETTING
from signal_dispatch.registry import registry


def check_envelope(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that what is put into the envelope of Standard Webhooks goes as JSON."""
    if dispatch.envelope != "standard":
        return
    other = {
        'encoding = "form"': dispatch.encoding == "form",
        "encode()": dispatch.overrides("encode"),
        "get_files()": dispatch.overrides("get_files"),
    }
    for what in (what for what, declared in other.items() if declared):
        yield Problem.ENVELOPE_NOT_JSON.message(
            f'{where(dispatch, "envelope")} is "standard", which is JSON, and {what} makes '
            "something else of it.",
            hint='Leave one of the two out. What "data" holds get_payload() decides.',
        )


def check_files(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that files can be sent along, and that they are ever asked for."""
    if not dispatch.overrides("get_files"):
        return
    place = where(dispatch, "get_files")
    if dispatch.overrides("encode"):
        yield Problem.FILES_INVALID.message(
            f"{place}() makes the call multipart, whose fields are the names of the payload, and "
            "encode() makes bytes of it.",
            hint="Leave one of the two out.",
        )
    if dispatch.overrides("send"):
        yield Problem.FILES_INVALID.message(
            f"{place}() is never asked: send() makes the call.",
            hint="Open the files in send().",
        )
    method: Any = dispatch.method
    methods = list(method.values()) if isinstance(method, Mapping) else [method]
    constant = not dispatch.overrides("get_method") and all(isinstance(m, str) for m in methods)
    bodiless = sorted({m.upper() for m in methods} & BODILESS_METHODS) if constant else []
    if bodiless and all(m.upper() in bodiless for m in methods):
        yield Problem.FILES_INVALID.message(
            f"{place}() is never asked: a call by {' or '.join(bodiless)} has no body.",
            hint='Declare another method, such as "POST", or leave get_files() out.',
        )


def check_url(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that there is a URL to call, where ``send()`` does not make the call."""
    if dispatch.overrides("send"):
        return
    senders = [d for d in registry if d.overrides("send")]
    for alias, entry in settings.endpoints.items():
        if {"URL", "RESOLVER"} & set(entry) or not _may_call(dispatch, alias):
            continue
        # What get_endpoint() names is seen at work: it may leave this one to others.
        chosen = dispatch.overrides("get_endpoint")
        if not (chosen and any(_may_call(d, alias) for d in senders)):
            yield Problem.URL_MISSING.message(
                f'{SETTING}["{alias}"] lacks "URL", the address of the API that '
                f"{where(dispatch)} calls.",
                hint='Add it, such as "https://crm.example.com/api/"; or override send(), and call '
                "the API there.",
            )


def _may_call(dispatch: ModelDispatch[Any], alias: str) -> bool:
    return dispatch.overrides("get_endpoint") or bool(dispatch.endpoint == alias)


def check_sensitive(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that what is to be masked can be found; a slip of the pen would leave it in the clear."""
    place = where(dispatch, "sensitive")
    names: Any = dispatch.sensitive
    if not is_list_of_names(names):
        yield Problem.SENSITIVE_INVALID.message(
            f"{place} must be a list or tuple of names.",
            hint='List names of the payload, such as ["iban", "address.street"].',
        )
        return
    if names and dispatch.overrides("encode"):
        yield Problem.SENSITIVE_INVALID.message(
            f"{place} can't be masked in the bytes that encode() makes.",
            hint="Leave one of the two out.",
        )
    for name in names if _has_fields_alone(dispatch) else ():
        if not any(
            name == field or name.startswith(f"{field}.") for field in dispatch.fields or ()
        ):
            yield Problem.SENSITIVE_INVALID.message(
                f"{place} has {name!r}, which is not in its fields.",
                hint=choice(name, dispatch.fields or (), where(dispatch, "fields")),
            )


def _has_fields_alone(dispatch: ModelDispatch[Any]) -> bool:
    own = dispatch.overrides("get_payload") or dispatch.serializer_class is not None
    return not own and is_list_of_names(dispatch.fields)


def check_sensitive_path(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Warn of what is masked in the body, and stands in the path for all to see."""
    path: Any = dispatch.path
    if dispatch.overrides("get_path") or not is_list_of_names(dispatch.sensitive):
        return
    templates = list(path.values()) if isinstance(path, Mapping) else [path]
    named = {n for t in templates if isinstance(t, str) for n in paths.variables(t)}
    for name in sorted(named & set(dispatch.sensitive)):
        yield Problem.SENSITIVE_IN_PATH.message(
            f"{where(dispatch, 'path')} has {{{name}}}, which is sensitive. A path is stored and "
            "shown as it is, and most servers log it.",
            hint="Name the object by something else, such as its key.",
        )
