"""Make one attempt of a delivery: find its endpoint, prepare, call, hand the answer on."""

from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from urllib.parse import parse_qsl, urlsplit

from django.db import InterfaceError, OperationalError
from django.utils import timezone

from signal_dispatch import crashpoints, preparing, redacting, settling
from signal_dispatch.answers import judge
from signal_dispatch.blanks import maker_of
from signal_dispatch.calling import call
from signal_dispatch.concluding import Case, concluded, failed
from signal_dispatch.credentials import Asked
from signal_dispatch.drafts import sentence_of
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import EndpointUnresolved, LeaseLost, SendError
from signal_dispatch.models import Attempt, Delivery, State, storable
from signal_dispatch.outcomes import Outcome, OutcomeKind, Response, outcome_of_error
from signal_dispatch.registry import registry
from signal_dispatch.sessions import SessionCache
from signal_dispatch.settling import Settlement

_new_attempt = maker_of(Attempt)


def deliver(
    delivery: Delivery,
    using: str,
    sessions: SessionCache,
    *,
    sender_name: str,
    raising: bool = False,
    resolve: Callable[[str], Endpoint] = endpoints.resolve,
) -> Settlement:
    """Make one attempt, and return what it led to.

    ``resolve`` is asked where to, before anything else. Without an endpoint no attempt is made,
    and the delivery waits. The settlement is ``recorded`` already where a hook ran in one
    transaction with it; else it is for the caller to write. Raises ``LeaseLost`` where somebody
    else has the delivery by now.
    """
    dispatch = registry.find(delivery.dispatch, delivery.model)
    if dispatch is None:
        raise LeaseLost(
            f"Nothing here is registered as {delivery.dispatch} for {delivery.model}: delivery "
            f"{delivery.pk} waits for a process that knows it."
        )
    case = Case(delivery, using, dispatch, endpoints[delivery.endpoint], raising)
    kept = settling.kept_answer(delivery, using) if delivery.handler_tries else None
    if kept is None:
        try:
            case = replace(case, endpoint=resolve(delivery.endpoint))
        except EndpointUnresolved as unresolved:
            return _waiting(case, unresolved)
    settled = _prepared(case)
    if settled is not None:
        return failed(case, settled) if settled.state == State.FAILED else settled
    if kept is not None:
        # What was judged when it came is not judged again: that could lead to another call.
        said = Outcome.delivered() if kept.outcome == OutcomeKind.DELIVERED else None
        return judge(case, _stored_response(kept), None, said=said)
    return _call(case, sessions, sender_name)


def _waiting(case: Case, unresolved: EndpointUnresolved) -> Settlement:
    """Let the delivery wait for its endpoint; no call was made, and no attempt is used up."""
    settlement = Settlement(
        case.delivery,
        State.PENDING,
        delay=unresolved.wait,
        error_class=unresolved.error_class,
        reason=str(unresolved),
    )
    if unresolved.error_class != "gone":  # then it is the site's code that should be corrected
        if case.raising:
            raise unresolved
        settlement.hook_error = unresolved
    return settlement


def _prepared(case: Case) -> Settlement | None:
    """Settle where the call goes; FAILED where the site's own code can't say."""
    if preparing.is_prepared(case.dispatch, case.delivery):
        return None
    settled: Settlement | None = None

    def work() -> None:
        nonlocal settled
        settled = preparing.prepare(case.dispatch, case.delivery, case.using)

    try:
        case.hook(work)()
        return settled
    except (LeaseLost, OperationalError, InterfaceError):  # the database is unwell, not the code
        raise
    except Exception as error:
        if case.raising:
            raise
        reason = sentence_of(case.dispatch, error)
        return Settlement(case.delivery, State.FAILED, error_class="build", reason=reason)


def _call(case: Case, sessions: SessionCache, sender_name: str) -> Settlement:
    attempt = _begun(case.delivery, sender_name)
    began = monotonic()
    try:
        brought = call(case, sessions.get(case.endpoint))
    except SendError as error:
        attempt.duration_ms = _milliseconds_since(began)
        return concluded(case, outcome_of_error(error), attempt)
    crashpoints.reached("after_answer")
    attempt.duration_ms = _milliseconds_since(began)
    if not isinstance(brought, Outcome):
        keep(attempt, brought, case.endpoint)
        return judge(case, brought, attempt)
    nothing = Response(204)
    if brought.kind == OutcomeKind.DELIVERED:  # kept, so that hooks can be run again on it
        keep(attempt, nothing, case.endpoint)
    return judge(case, nothing, attempt, said=brought)


def _begun(delivery: Delivery, sender_name: str) -> Attempt:
    """Return the attempt that begins now."""
    attempt = _new_attempt(
        number=delivery.attempts + 1, started_at=timezone.now(), sender=sender_name
    )
    attempt.delivery = delivery
    return attempt


def keep(attempt: Attempt, response: Response, endpoint: Endpoint) -> None:
    """Let the attempt hold the answer as it may be stored; hooks are given it as it came."""
    headers = redacting.kept_headers(
        response.headers,
        endpoint.redact,
        parameters=_parameters(endpoint, response.url),
        # Where it leads elsewhere, nobody needs the rest of its URL; a Slack hook's is the secret.
        path=urlsplit(endpoint.url).path if 300 <= response.status_code < 400 else "",
    )
    attempt.status_code = response.status_code
    attempt.response_headers = {name: storable(value) for name, value in headers.items()}
    attempt.response_body = redacting.kept_content(response.content, endpoint.redact)
    attempt.truncated = response.truncated


def _parameters(endpoint: Endpoint, url: str) -> list[str]:
    """Return the names of the parameters whose values are the endpoint's own."""
    added = endpoint.query
    if isinstance(added, Asked) and not added.parts:
        return _names(url)  # which of them were asked for can't be told any more
    return _names(endpoint.url) + list(added.parts if isinstance(added, Asked) else dict(added))


def _names(url: str) -> list[str]:
    return [name for name, _value in parse_qsl(urlsplit(url).query)]


def _stored_response(kept: Attempt) -> Response:
    return Response.from_stored(
        kept.status_code or 0,
        kept.response_headers,
        bytes(kept.response_body),
        truncated=kept.truncated,
    )


def _milliseconds_since(began: float) -> int:
    return round((monotonic() - began) * 1000)
