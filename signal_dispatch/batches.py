"""Record batches of answers, whatever they hold."""

import logging
from collections.abc import Sequence

from django.db import InterfaceError, OperationalError

from signal_dispatch import settling
from signal_dispatch.settling import Settlement

logger = logging.getLogger("signal_dispatch")


def settle_all(settlements: Sequence[Settlement], using: str) -> list[Settlement]:
    """Write the batch and return what was accepted.

    Where the database refuses one of them, the others are written alone, and that one without
    what came from outside: it would be refused for ever, and hold up all that come after it.
    """
    try:
        return settling.settle(settlements, using)
    except (OperationalError, InterfaceError):
        raise  # the database is unwell, not the batch
    except Exception:
        logger.exception(
            "The database %r refused a batch of %s records: each is written alone now.",
            using,
            len(settlements),
            extra={"action": "batch_refused"},
        )
    return [s for settlement in settlements for s in _settle_alone(settlement, using)]


def _settle_alone(settlement: Settlement, using: str) -> list[Settlement]:
    try:
        return settling.settle([settlement], using)
    except (OperationalError, InterfaceError):
        raise
    except Exception:
        delivery = settlement.delivery
        extra = delivery.log_extra("answer_lost")
        logger.exception(
            "The answer to delivery %s is lost: the database %r refused it. Its attempt is "
            "recorded without it.",
            delivery.pk,
            using,
            extra=extra,
        )
    # The attempt still counts, or a delivery whose answers are never storable is sent for ever.
    settlement.reason = "The answer could not be stored: the log says what the database refused."
    if settlement.attempt is not None:
        settlement.attempt.error = settlement.reason
        settlement.attempt.response_headers, settlement.attempt.response_body = {}, b""
    return settling.settle([settlement], using)
