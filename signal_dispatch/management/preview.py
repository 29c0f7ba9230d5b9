"""Write down the request that a save of one object would make, its secrets masked."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

from django.db import transaction
from django.db.models import Model

from signal_dispatch import lookups, masking, paths, remote_ids, sender, signing
from signal_dispatch.credentials import Asked
from signal_dispatch.declarations import BODILESS_METHODS, ModelDispatch
from signal_dispatch.drafts import (
    REMOTE_ID,
    draft_path,
    is_drafted_later,
    retyped,
    uses_remote_id,
)
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import Endpoint
from signal_dispatch.events import Change, Event
from signal_dispatch.exceptions import EndpointUnresolved
from signal_dispatch.keys import plain_key
from signal_dispatch.models import Delivery
from signal_dispatch.plans import Plan, plan_of, redrafted
from signal_dispatch.redacting import MASK
from signal_dispatch.registry import registry

ASKED = "asked when it is sent"


def preview(instance: Model, using: str) -> Iterator[str]:
    """Yield, line by line, what each dispatch would send for an UPDATED of the object.

    Hooks are asked as at a save that leaves all tracked fields as they are. What they write is
    rolled back. Raises ``InvalidEndpoint`` for settings that can't be used.
    """
    dispatches = [d for d in registry if d.connectable and isinstance(instance, d.model)]
    if not dispatches:
        yield f"No dispatch is registered for {instance._meta.label}: a save tells nobody."
    for dispatch in dispatches:
        with transaction.atomic(using=using):
            lines = list(_requests(dispatch, instance, using))
            transaction.set_rollback(True, using=using)
        yield f"# {dispatch.name}: {instance._meta.label} {instance.pk}"
        yield from lines
        yield ""


def _requests(dispatch: ModelDispatch[Any], instance: Model, using: str) -> Iterator[str]:
    old = {name: lookups.resolve(instance, name) for name in dispatch.tracked}
    change = Change(Event.UPDATED, instance, using, old)
    plan = plan_of(dispatch, change, judge=False, foreseen=True)
    if plan is None:
        yield f"Nothing is sent: {_reason(dispatch, change)}."
        return
    if plan.error:
        yield f"Nothing can be sent, the delivery would be FAILED: {plan.error}"
        return
    if dispatch.when_changed:
        yield f"Only by a save that changes {' or '.join(dispatch.when_changed)}."
    if is_drafted_later(dispatch, plan.event):
        yield "Taken when it is sent; this is how it would be now."
        plan = redrafted(dispatch, change, plan, plan.event, foreseen=True)
        if plan.error:
            yield f"The delivery would be FAILED then: {plan.error}"
            return
    for alias in plan.endpoints:
        if fault := endpoints.fault_of_key(alias):
            yield f"Nothing can be sent, the delivery would be FAILED: {fault}"
            continue
        yield from _request(dispatch, plan, alias, change)


def _reason(dispatch: ModelDispatch[Any], change: Change[Any]) -> str:
    """Ask again, one question at a time, where the answers led to no plan."""
    if change.event not in dispatch.on:
        return f"'{change.event}' is not in its 'on'"
    if dispatch.get_event(change.instance, change) is None:
        return "get_event() answers None"
    if not dispatch.should_send(change.instance, change):
        return "should_send() says no"
    if not dispatch.overrides("get_endpoint"):
        return f"ENABLED is False for the endpoint {dispatch.endpoint!r}"
    return "get_endpoint() names no endpoint that is enabled"


def _request(
    dispatch: ModelDispatch[Any], plan: Plan, alias: str, change: Change[Any]
) -> Iterator[str]:
    event, method, path = plan.event, plan.draft.method, plan.draft.path
    body = plan.draft.body
    if uses_remote_id(dispatch):
        known = _remote_id(dispatch, alias, change)
        if known is None and event == Event.DELETED:
            yield f"Nothing is sent to {alias!r}: it never knew this object."
            return
        if known is None and event == Event.UPDATED:
            event = Event.CREATED
            created = Change(event, change.instance, change.using)
            method = dispatch.get_method(change.instance, created).upper()
            path = draft_path(dispatch, created)
            body = retyped(dispatch, body, plan.event, event)
        if REMOTE_ID in paths.variables(path):
            if known is None:
                yield f"Nothing can be sent: {path!r} needs the remote's id, and it is not known."
                return
            path = paths.expand(path, {REMOTE_ID: known})
    endpoint, note = _endpoint(alias)
    by_send = dispatch.overrides("send")
    url = f"{path or '(no path)'} by send()" if by_send else _masked_url(endpoint, path)
    yield f"{method} {url}  ({event}, to {alias!r}{note})"
    if not by_send:
        yield from _headers(endpoint, plan, method)
        yield from _files(dispatch, method)
    if body:
        yield ""
        yield _readable(masking.masked(dispatch, body, plan.draft.headers))


def _endpoint(alias: str) -> tuple[Endpoint, str]:
    """Return where the call goes, and a note where it can't go there now."""
    if alias not in endpoints:
        return Endpoint(alias, "https://unknown"), ", waits until settings know it"
    try:
        return endpoints.resolve(alias), ""
    except EndpointUnresolved as unresolved:
        return Endpoint(alias, "https://unresolved"), f", waits: {unresolved}"


def _remote_id(dispatch: ModelDispatch[Any], alias: str, change: Change[Any]) -> str | None:
    options = dispatch.model._meta
    pk = plain_key(getattr(change.instance, options.pk.attname))
    named = Delivery(
        dispatch=dispatch.name, endpoint=alias, model=options.label_lower, object_pk=pk
    )
    return remote_ids.known_id(named, change.using)


def _masked_url(endpoint: Endpoint, path: str) -> str:
    """Return the URL of the call; what the endpoint brings beside its host may be a secret."""
    own = urlsplit(endpoint.url)
    base = f"{own.scheme}://{endpoint.host}"
    base += f"/{MASK}" if own.path.strip("/") else ""
    base += f"?{MASK}" if own.query else ""
    url = Endpoint(endpoint.alias, base).join(path)
    query = endpoint.query
    for name in query.parts if isinstance(query, Asked) else dict(query):
        url += f"{'&' if '?' in url else '?'}{quote(name)}={MASK}"
    return url


def _headers(endpoint: Endpoint, plan: Plan, method: str) -> Iterator[str]:
    stored, added = plan.draft.headers, endpoint.headers
    call = sender.Call(method, "", stored, b"", uid="(one for each delivery)")
    shown = {
        name: f"({ASKED})" if callable(value) else MASK
        for name, value in (added.parts if isinstance(added, Asked) else added).items()
    }
    for name, value in sender.headers_of(call, shown).items():
        yield f"{name}: {value}"
    yield from _signature(endpoint.secrets)
    if isinstance(added, Asked) and not added.parts:
        yield f"(HEADERS: {ASKED})"
    if isinstance(endpoint.query, Asked):
        yield f"(QUERY: {ASKED})"
    if endpoint.auth:
        yield f"(AUTH: {ASKED if isinstance(endpoint.auth, Asked) else MASK})"


def _files(dispatch: ModelDispatch[Any], method: str) -> Iterator[str]:
    if dispatch.overrides("get_files") and method not in BODILESS_METHODS:
        yield "(as multipart/form-data, with what get_files() opens)"


def _signature(secrets: tuple[str, ...] | Asked) -> Iterator[str]:
    if secrets:
        yield f"{signing.ID}: (one for each delivery)"
        yield f"{signing.TIMESTAMP}: (one for each attempt)"
        yield f"{signing.SIGNATURE}: {f'({ASKED})' if isinstance(secrets, Asked) else MASK}"


def _readable(body: bytes) -> str:
    """Return JSON with line breaks, other text as it is, and of other bytes the number."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"({len(body)} bytes)"
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
