"""Check what a dispatch declares, apart from names that lead into its model."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from django.core.checks import CheckMessage

from signal_dispatch import readers
from signal_dispatch.checks.names import is_list_of_names
from signal_dispatch.checks.problems import Problem, choice, longest, where
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import uses_remote_id
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import SETTING
from signal_dispatch.redacting import is_confidential
from signal_dispatch.registry import registry
from signal_dispatch.retries import RetryPolicy

# RFC 9110, 9.1 and 5.6.2; as long as the outbox keeps it.
_METHOD = re.compile(rf"[!#$%&'*+.^_`|~0-9A-Za-z-]{{1,{longest('method')}}}")
_CHOICES = {
    "encoding": ("json", "form"),
    "envelope": ("plain", "standard"),
    "snapshot": ("save", "send"),
}
# Anything else would count as one of the two, and not always as the one that was meant.
_FLAGS = ("ordered", "latest_wins", "merge")


def check_endpoint(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Look the alias up; what ``get_endpoint`` answers only its objects know."""
    alias: Any = dispatch.endpoint
    if dispatch.overrides("get_endpoint"):
        return
    if not alias:
        yield Problem.ENDPOINT_MISSING.message(
            f"{where(dispatch)} names no endpoint.",
            hint=f"Set its endpoint, or override get_endpoint(). {choice('', endpoints, SETTING)}",
        )
    elif not isinstance(alias, str) or alias not in endpoints:
        yield Problem.ENDPOINT_UNKNOWN.message(
            f"{where(dispatch, 'endpoint')} is {alias!r}, which {SETTING} does not have.",
            hint=f"{choice(str(alias), endpoints, SETTING)} get_endpoint() may name several.",
        )
    elif fault := endpoints.fault_of_key(alias):
        yield Problem.ENDPOINT_KEY_MISSING.message(
            f"{where(dispatch, 'endpoint')} is {alias!r}. {fault}",
            hint=f'Override get_endpoint() to answer f"{alias.partition(":")[0]}:{{key}}".',
        )


def check_events(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that there are events, and that a dict by event knows each of them."""
    place = where(dispatch, "on")
    most = longest("event")
    if not is_list_of_names(dispatch.on) or not dispatch.on:
        yield Problem.EVENTS_INVALID.message(
            f"{place} must be a list or tuple of events, and not empty.",
            hint='List members of Event and names of your own, as [Event.CREATED, "refunded"].',
        )
        return
    for event in dispatch.on:
        if len(event) > most:
            yield Problem.EVENTS_INVALID.message(
                f"{place} has {event!r}, which is longer than {most} characters.",
                hint="Give the event a shorter name.",
            )
    for attribute in ("path", "method"):
        value = getattr(dispatch, attribute)
        if isinstance(value, Mapping) and not dispatch.overrides(f"get_{attribute}"):
            for event in dispatch.on:
                if event not in value:
                    yield Problem.EVENT_WITHOUT_ENTRY.message(
                        f"{where(dispatch, attribute)} has no entry for the event {str(event)!r}.",
                        hint=f"Add one, or take the event out of {place}.",
                    )


def check_method(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that what is declared can stand in a request line."""
    if dispatch.overrides("get_method"):
        return
    method: Any = dispatch.method
    for token in method.values() if isinstance(method, Mapping) else [method]:
        if not isinstance(token, str) or not _METHOD.fullmatch(token):
            yield Problem.METHOD_INVALID.message(
                f"{where(dispatch, 'method')} holds {token!r}, which is no HTTP method.",
                hint='Write a method such as "POST" or "PUT", or a dict of them by event.',
            )


def check_payload(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Refuse a dispatch that leaves open what is sent."""
    declared = dispatch.fields is not None or dispatch.serializer_class is not None
    if not declared and not dispatch.overrides("get_payload"):
        yield Problem.PAYLOAD_MISSING.message(
            f'{where(dispatch)} declares no payload. There is no "all fields" default, so that '
            f"no password hash of {dispatch.model._meta.label} ever leaves by accident.",
            hint="List its fields (() for a call without a body), set serializer_class, or "
            "override get_payload().",
        )


def check_values(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that attributes with a few possible values have one of them."""
    for attribute, known in _CHOICES.items():
        value = getattr(dispatch, attribute)
        if value not in known and not (attribute == "encoding" and dispatch.overrides("encode")):
            yield _invalid(dispatch, attribute, f"is {value!r}.", f"Use one of {known!r}.")
    for attribute in _FLAGS:
        try:
            readers.flag(getattr(dispatch, attribute))
        except TypeError as error:
            yield _invalid(dispatch, attribute, str(error), "Write it without quotes.")
    if dispatch.retry is not None and not isinstance(dispatch.retry, RetryPolicy):
        yield _invalid(dispatch, "retry", "is no RetryPolicy.", "Write RetryPolicy(delays=[...]).")
    if not isinstance(dispatch.remote_id, str):
        hint = 'Write the dotted path into the response, such as "data.id".'
        yield _invalid(dispatch, "remote_id", "must be a string.", hint)
    yield from _check_name(dispatch)


def _check_name(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    name: Any = dispatch.name
    most = longest("dispatch")
    if not isinstance(name, str):
        hint = 'Write a stable name such as "shop.OrderToCRM", or leave it out.'
        yield _invalid(dispatch, "name", "must be a string.", hint)
    elif len(name) > most:
        hint = "Set a shorter name."
        yield _invalid(dispatch, "name", f"is longer than {most} characters.", hint)


def check_headers(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that headers can be sent, and that none of them looks like a secret."""
    place = where(dispatch, "headers")
    try:
        readers.headers(dispatch.headers)
    except (TypeError, ValueError) as error:
        hint = 'Write a dict such as {"Accept-Language": "de"}.'
        yield _invalid(dispatch, "headers", str(error), hint)
        return
    for name in dispatch.headers:
        if is_confidential(name):
            yield Problem.HEADER_CONFIDENTIAL.message(
                f"{place} has {name!r}, which looks like a secret, and these are stored with "
                "each delivery.",
                hint=f'Move it to {SETTING}["{dispatch.endpoint}"]["HEADERS"]: those are added '
                "when it is sent, and never stored.",
            )


def check_order(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """Refuse calls by an id that an earlier call, perhaps still under way, is to bring."""
    if uses_remote_id(dispatch) and not dispatch.ordered:
        yield Problem.REMOTE_ID_UNORDERED.message(
            f"{where(dispatch)} keeps the remote's ids, which needs ordered = True: the calls "
            "for an object have to wait for the one that answers with its id.",
            hint="Leave ordered out, or do without remote_id and get_remote_id().",
        )


def check_latest(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that there is a lane in which a newer delivery can replace what waits, and a delay."""
    try:
        readers.delay(dispatch.delay)
    except (TypeError, ValueError) as error:
        yield _invalid(dispatch, "delay", str(error), "Write a number of seconds, such as 2.5.")
    if dispatch.latest_wins and not dispatch.ordered:
        yield Problem.LATEST_UNORDERED.message(
            f"{where(dispatch)} has latest_wins, which needs ordered = True: what waits is found "
            "by its lane.",
            hint="Leave ordered out, or do without latest_wins.",
        )


def check_names_taken() -> Iterator[CheckMessage]:
    """See that a name stands for one class: rows know their dispatch by nothing else."""
    owners: dict[str, ModelDispatch[Any]] = {}
    for dispatch in registry:
        name: Any = dispatch.name
        if not isinstance(name, str):
            continue  # Told by check_values; it may not even have a hash.
        owner = owners.setdefault(name, dispatch)
        if type(owner) is not type(dispatch):
            yield Problem.NAME_TAKEN.message(
                f"{where(dispatch)} has the name {name!r}, as has {where(owner)}.",
                hint="Set name on one of them; on the newer one, if deliveries are stored already.",
            )


def _invalid(dispatch: ModelDispatch[Any], attribute: str, what: str, hint: str) -> CheckMessage:
    return Problem.VALUE_INVALID.message(f"{where(dispatch, attribute)} {what}", hint=hint)
