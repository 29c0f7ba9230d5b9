"""Judge the answer of an attempt, and run the site's own code on it."""

import logging
from typing import Any

from django.utils import timezone

from signal_dispatch import remote_ids, settling
from signal_dispatch.concluding import Case, concluded, failed
from signal_dispatch.drafts import uses_remote_id
from signal_dispatch.exceptions import LeaseLost
from signal_dispatch.models import Attempt, State, storable
from signal_dispatch.outcomes import Outcome, OutcomeKind, Response, outcome_of
from signal_dispatch.remote_ids import RemoteIdMissing
from signal_dispatch.settling import Settlement

logger = logging.getLogger("signal_dispatch")


def judge(
    case: Case, response: Response, attempt: Attempt | None, *, said: Outcome | None = None
) -> Settlement:
    """Turn an answer into a settlement; ``attempt`` is None for one that was kept.

    ``said`` is what it is known to mean, as ``send()`` may say: then nothing else is asked.
    """
    try:
        asked = said or _outcome_asked(case, response)
    except Exception as error:  # noqa: BLE001 - whatever the site's code raises
        return _hook_failed(case, "get_outcome", error, attempt)
    outcome = asked or outcome_of(response, timezone.now())
    if outcome.kind == OutcomeKind.RECREATE:
        try:
            return concluded(case, outcome, attempt)
        except Exception as error:  # noqa: BLE001 - above all the database's
            return _hook_failed(case, "get_outcome", error, attempt)
    if outcome.kind != OutcomeKind.DELIVERED:
        return concluded(case, outcome, attempt)
    if attempt is not None:
        attempt.outcome = OutcomeKind.DELIVERED
    return _delivered(case, response, attempt)


def _outcome_asked(case: Case, response: Response) -> Outcome | None:
    if not case.dispatch.overrides("get_outcome"):
        return None
    asked: Any = None

    def work() -> None:
        nonlocal asked
        asked = case.dispatch.get_outcome(case.delivery, response)

    case.hook(work)()
    if asked is not None and not isinstance(asked, Outcome):
        raise TypeError(f"it returned {asked!r}, which is no Outcome")
    return asked


def _delivered(case: Case, response: Response, attempt: Attempt | None) -> Settlement:
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
        return failed(case, settlement)

    hook = "get_remote_id"

    def work() -> None:
        nonlocal hook
        remote_ids.keep(dispatch, delivery, response, case.using)
        hook = "handle_response"
        dispatch.handle_response(delivery, response)

    try:
        settling.settle_with(settlement, case.using, case.hook(work))
    except LeaseLost:
        return settlement  # refused again when it is written, but its attempt goes on record
    except RemoteIdMissing as error:
        settlement.state, settlement.error_class = State.FAILED, "handler"
        settlement.reason = str(error)
        return failed(case, settlement)
    except Exception as error:  # noqa: BLE001 - whatever the site's code raises
        return _hook_failed(case, hook, error, attempt)
    settlement.recorded = True
    return settlement


def _hook_failed(case: Case, hook: str, error: Exception, attempt: Attempt | None) -> Settlement:
    """Keep the answer and try the hook again later; the call is never made again."""
    if case.raising:
        raise error
    delivery = case.delivery
    reason = f"{case.dispatch.name}: {hook}() raised {type(error).__name__}: {storable(str(error))}"
    logger.error(
        "%s. The answer to delivery %s is kept: the hook is run again, and no call made. Where "
        "that ends as FAILED, correct the hook and run 'manage.py dispatch_retry'.",
        reason,
        delivery.pk,
        exc_info=error,
        extra=delivery.log_extra("handler_failed"),
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
        return failed(case, settlement)
    settlement.delay = delay
    return settlement
