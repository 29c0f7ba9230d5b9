"""Make one attempt of a delivery: prepare, call, judge the answer, process it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from django.db import Error
from django.utils import timezone

from signal_dispatch import crashpoints, remote_ids, sender, settling, signals, suppression
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.drafts import uses_remote_id
from signal_dispatch.endpoints import Endpoint, endpoints
from signal_dispatch.exceptions import LeaseLost, SendError
from signal_dispatch.models import Attempt, Delivery, State, storable
from signal_dispatch.outcomes import (
    Outcome,
    OutcomeKind,
    Response,
    outcome_of,
    outcome_of_error,
)
from signal_dispatch.registry import registry
from signal_dispatch.remote_ids import RemoteIdMissing
from signal_dispatch.retries import RetryPolicy
from signal_dispatch.settling import Settlement

logger = logging.getLogger("signal_dispatch")


@dataclass(frozen=True, slots=True)
class _Case:
    """One delivery in hand. ``raising``: errors of hooks are the caller's, as in tests."""

    delivery: Delivery
    using: str
    dispatch: ModelDispatch[Any]
    endpoint: Endpoint
    raising: bool

    def hook(self, work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            delivery = self.delivery
            with suppression.running_hook(
                self.dispatch.name, delivery.model, delivery.object_pk, delivery.hops
            ):
                try:
                    work()
                except SystemExit as error:  # it would end this thread, not the process
                    raise RuntimeError("it called sys.exit()") from error

        return run

    def wait_before(self, attempt: int) -> float | None:
        policy = self.dispatch.retry or self.endpoint.retry
        return policy.delay_before(attempt)


def deliver(
    delivery: Delivery,
    using: str,
    sessions: sender.SessionCache,
    *,
    sender_name: str,
    raising: bool = False,
) -> Settlement:
    """Make one attempt, and return what it led to.

    The settlement is ``recorded`` already where a hook ran in one transaction with it; else it is
    for the caller to write. Raises ``LeaseLost`` where somebody else has the delivery by now.
    """
    dispatch = registry.find(delivery.dispatch, delivery.model)
    if dispatch is None:
        raise LeaseLost(f"Nothing here is registered as {delivery.dispatch} for {delivery.model}.")
    case = _Case(delivery, using, dispatch, endpoints[delivery.endpoint], raising)
    settled = _prepared(case)
    if settled is not None:
        return _failed(case, settled) if settled.state == State.FAILED else settled
    kept = settling.kept_answer(delivery, using) if delivery.handler_tries else None
    if kept is not None:
        return _judge(case, _stored_response(kept), None)
    return _call(case, sessions, sender_name)


def _prepared(case: _Case) -> Settlement | None:
    """Settle where the call goes; FAILED where the site's own code can't say."""
    try:
        return remote_ids.prepare(case.dispatch, case.delivery, case.using)
    except (LeaseLost, Error):
        raise
    except Exception as error:
        if case.raising:
            raise
        reason = f"{case.dispatch.name}: {type(error).__name__}: {error}"
        return Settlement(case.delivery, State.FAILED, error_class="build", reason=reason)


def _call(case: _Case, sessions: sender.SessionCache, sender_name: str) -> Settlement:
    delivery = case.delivery
    attempt = Attempt(
        delivery=delivery,
        number=delivery.attempts + 1,
        started_at=timezone.now(),
        sender=sender_name,
    )
    began = monotonic()
    try:
        response = sender.send(call_for(delivery), case.endpoint, sessions.get(case.endpoint))
    except SendError as error:
        attempt.duration_ms = _milliseconds_since(began)
        return _concluded(case, outcome_of_error(error), attempt)
    crashpoints.reached("after_answer")
    attempt.duration_ms = _milliseconds_since(began)
    attempt.status_code = response.status_code
    attempt.response_headers = {k: storable(v) for k, v in response.headers.items()}
    attempt.response_body = response.content
    attempt.truncated = response.truncated
    return _judge(case, response, attempt)


def call_for(delivery: Delivery) -> sender.Call:
    """Return the call that a delivery makes, with what its endpoint adds."""
    return sender.build_call(
        endpoints[delivery.endpoint],
        method=delivery.method,
        path=delivery.path,
        headers=delivery.headers,
        body=bytes(delivery.body),
        uid=str(delivery.uid),
    )


def _judge(case: _Case, response: Response, attempt: Attempt | None) -> Settlement:
    """Turn an answer into a settlement; ``attempt`` is None for one that was kept."""
    try:
        asked = _outcome_asked(case, response)
    except Exception as error:  # noqa: BLE001 - whatever the site's code raises
        return _hook_failed(case, "get_outcome", error, attempt)
    outcome = asked or outcome_of(response, timezone.now())
    if outcome.kind != OutcomeKind.DELIVERED:
        return _concluded(case, outcome, attempt)
    if attempt is not None:
        attempt.outcome = OutcomeKind.DELIVERED
    return _delivered(case, response, attempt)


def _outcome_asked(case: _Case, response: Response) -> Outcome | None:
    asked: Any = None

    def work() -> None:
        nonlocal asked
        asked = case.dispatch.get_outcome(case.delivery, response)

    case.hook(work)()
    if asked is not None and not isinstance(asked, Outcome):
        raise TypeError(f"it returned {asked!r}, which is no Outcome")
    return asked


def _delivered(case: _Case, response: Response, attempt: Attempt | None) -> Settlement:
    dispatch, delivery = case.dispatch, case.delivery
    settlement = Settlement(delivery, State.DELIVERED, attempt)
    handles = dispatch.overrides("handle_response")
    if not handles and not uses_remote_id(dispatch):
        return settlement
    if response.truncated:
        settlement.state, settlement.error_class = State.FAILED, "too_large"
        settlement.reason = (
            f"The answer is longer than {case.endpoint.max_response_bytes} bytes "
            f"(MAX_RESPONSE_BYTES), and it is needed whole. The call is not made again."
        )
        return _failed(case, settlement)

    def work() -> None:
        remote_ids.keep(dispatch, delivery, response, case.using)
        dispatch.handle_response(delivery, response)

    try:
        settling.settle_with(settlement, case.using, case.hook(work))
    except LeaseLost:
        return settlement  # refused again when it is written, but its attempt goes on record
    except RemoteIdMissing as error:
        settlement.state, settlement.error_class = State.FAILED, "handler"
        settlement.reason = str(error)
        return _failed(case, settlement)
    except Exception as error:  # noqa: BLE001 - whatever the site's code raises
        return _hook_failed(case, "handle_response", error, attempt)
    settlement.recorded = True
    return settlement


def _hook_failed(case: _Case, hook: str, error: Exception, attempt: Attempt | None) -> Settlement:
    """Keep the answer and try the hook again later; the call is never made again."""
    if case.raising:
        raise error
    delivery = case.delivery
    reason = f"{case.dispatch.name}: {hook}() raised {type(error).__name__}: {storable(str(error))}"
    logger.error(
        "%s The answer is kept.", reason, exc_info=error, extra={"action": "handler_failed"}
    )
    if attempt is not None:
        attempt.outcome = attempt.outcome or OutcomeKind.RETRY
        attempt.error_class, attempt.error = "handler", reason
    settlement = Settlement(
        delivery, State.PENDING, attempt, error_class="handler", reason=reason, handler_tried=True
    )
    settlement.hook_error = error
    # One try is behind: the next one is the second.
    delay = case.wait_before(delivery.handler_tries + 2)
    if delay is None:
        settlement.state = State.FAILED
        return _failed(case, settlement)
    settlement.delay = delay
    return settlement


def _concluded(case: _Case, outcome: Outcome, attempt: Attempt | None) -> Settlement:
    """Retry or give up, as the outcome and the policy say."""
    settlement = Settlement(
        case.delivery, State.FAILED, attempt, error_class=outcome.error_class, reason=outcome.reason
    )
    if attempt is not None:
        attempt.outcome, attempt.error_class = outcome.kind, outcome.error_class
        attempt.error = outcome.reason
    else:  # a kept answer that says "not now" is not looked at again: the next try is a call
        settlement.handler_tries = 0
    delay = case.wait_before(settlement.attempts + 1)
    if outcome.kind == OutcomeKind.REJECTED or delay is None:
        return _failed(case, settlement)
    settlement.state, settlement.delay = State.PENDING, max(delay, outcome.after or 0.0)
    return settlement


def _failed(case: _Case, settlement: Settlement) -> Settlement:
    """Call ``handle_failure`` in one transaction with the mark FAILED, where there is one."""
    if not case.dispatch.overrides("handle_failure"):
        return settlement
    settlement.apply()  # so that the hook sees how it ended

    def work() -> None:
        case.dispatch.handle_failure(case.delivery, settlement.attempt)

    try:
        settling.settle_with(settlement, case.using, case.hook(work))
    except LeaseLost:
        return settlement  # as above
    except Exception as error:
        if case.raising:
            raise
        logger.exception("%s: handle_failure() raised.", case.dispatch.name)
        settlement.hook_error = error
        settlement.reason += f" Then handle_failure() raised {type(error).__name__}: {error}"
        return settlement
    settlement.recorded = True
    return settlement


def count_internal(delivery: Delivery, error: BaseException, *, sender_name: str) -> Settlement:
    """Return what becomes of a delivery that broke the code around its attempt.

    It counts as an attempt: otherwise the same call might be made for ever.
    """
    reason = storable(f"{type(error).__name__}: {error}")
    attempt = Attempt(
        delivery=delivery,
        number=delivery.attempts + 1,
        started_at=timezone.now(),
        outcome=OutcomeKind.RETRY,
        error_class="internal",
        error=reason,
        sender=sender_name,
    )
    dispatch = registry.find(delivery.dispatch, delivery.model)
    endpoint = endpoints.find(delivery.endpoint)
    chosen = dispatch.retry if dispatch else None
    policy = chosen or (endpoint.retry if endpoint else RetryPolicy())
    delay = policy.delay_before(attempt.number + 1)
    state = State.FAILED if delay is None else State.PENDING
    return Settlement(
        delivery, state, attempt, delay=delay or 0.0, error_class="internal", reason=reason
    )


def tell(settlements: Iterable[Settlement], using: str) -> None:
    """Tell the signals' receivers what is recorded now, and let the deliveries show it."""
    for settlement in settlements:
        delivery, attempt = settlement.delivery, settlement.attempt
        settlement.apply()
        if attempt is not None:
            signals.attempt_finished.send_robust(
                sender=Delivery, delivery=delivery, attempt=attempt, using=using
            )
        if settlement.state == State.FAILED:
            logger.warning(
                "Delivery %s is failed for good. %s",
                delivery,
                settlement.reason,
                extra={"action": "delivery_failed", "delivery": delivery.pk},
            )
        if settlement.finished:
            signals.delivery_finished.send_robust(sender=Delivery, delivery=delivery, using=using)


def _stored_response(kept: Attempt) -> Response:
    return Response.from_stored(
        kept.status_code or 0,
        kept.response_headers,
        bytes(kept.response_body),
        truncated=kept.truncated,
    )


def _milliseconds_since(began: float) -> int:
    return round((monotonic() - began) * 1000)
