"""System checks: what would go wrong at work is told by ``manage.py check`` before.

``problems.Problem`` is the table of their ids.
"""

from collections.abc import Iterator
from typing import Any

from django.core import checks
from django.core.checks import CheckMessage

from signal_dispatch.checks import (
    addressing,
    attributes,
    bodies,
    credentials,
    exposure,
    names,
    site,
    slips,
    tables,
)
from signal_dispatch.checks.problems import guarded, where
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.registry import registry

TAG = "signal_dispatch"

_OF_THE_SITE = {
    "SIGNAL_DISPATCH_*": (
        site.check_settings,
        site.check_environment,
        site.check_rate_storage,
    ),
    "SIGNAL_DISPATCH_ENDPOINTS": (site.check_endpoints, credentials.check_credentials),
    "SIGNAL_DISPATCH_BACKENDS": (site.check_backends,),
    "DATABASES": (tables.check_sqlite,),
    "The managers of the models": (tables.check_bulk,),
    "The names of the dispatches": (attributes.check_names_taken,),
}
_OF_A_DISPATCH = (
    attributes.check_endpoint,
    attributes.check_events,
    attributes.check_method,
    attributes.check_payload,
    attributes.check_values,
    attributes.check_headers,
    attributes.check_order,
    attributes.check_latest,
    exposure.check_redacted_id,
    bodies.check_envelope,
    bodies.check_files,
    bodies.check_url,
    bodies.check_sensitive,
    bodies.check_sensitive_path,
    names.check_fields,
    names.check_tracked,
    names.check_relations,
    names.check_path,
    addressing.check_addresses,
    addressing.check_delete,
    slips.check_spelling,
    slips.check_event_names,
    slips.check_method_names,
    slips.check_hooks,
    tables.check_key,
    tables.check_outbox,
)


def connect() -> None:
    """Let Django run the checks; twice is as good as once."""
    checks.register(check, TAG)


def check(**kwargs: Any) -> list[CheckMessage]:
    """Return every message, each once; none while no dispatch is registered.

    A dispatch belongs to the app of its class and to that of its model, so a choice of apps
    (``manage.py check shop``) leaves none out.
    """
    messages: list[CheckMessage] = []
    if len(registry):
        # A class that is registered for several models has most of its faults in common.
        for message in _all_messages():
            if message not in messages:
                messages.append(message)
    return messages


def _all_messages() -> Iterator[CheckMessage]:
    for place, functions in _OF_THE_SITE.items():
        for function in functions:
            yield from guarded(place, function())
    for dispatch in registry:
        yield from _messages_of(dispatch)


def _messages_of(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    place = where(dispatch)
    refusal = list(tables.check_model(dispatch))
    yield from refusal
    if refusal:
        return  # There is nothing to look names up in.
    for function in _OF_A_DISPATCH:
        yield from guarded(place, function(dispatch))
    yield from guarded(where(dispatch, "check()"), _own_messages(dispatch))


def _own_messages(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    if not slips.is_async(dispatch.check):  # that is told, once
        yield from dispatch.check()
