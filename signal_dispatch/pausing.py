"""Pause an endpoint, and resume it: by a person, for all processes at once."""

import logging

from django.db import DEFAULT_DB_ALIAS

from signal_dispatch import bars, signals
from signal_dispatch.backends import backends
from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import EndpointState

logger = logging.getLogger("signal_dispatch")


def pause(endpoint: str, *, by: str, reason: str = "", using: str = DEFAULT_DB_ALIAS) -> bool:
    """Let nobody call the endpoint until it is resumed; False where it is paused already.

    ``by`` says who asked for it. What is to be sent waits in the outbox, and loses no attempt.
    Calls in flight end by themselves; what a process has in hand it gives back within seconds.
    Where it is paused already, a reason takes the place of the one that stands.
    Raises ``UnknownEndpoint``.
    """
    _refuse_unknown(endpoint)
    kept = {"by": by[:150], "reason": reason[:500]}
    if not bars.pause(using, endpoint, **kept):
        if reason:
            bars.give_reason(using, endpoint, **kept)
            logger.info(
                "The endpoint %r stays paused, says %s: %s",
                endpoint,
                by,
                reason,
                extra={"action": "endpoint_pause_explained", "endpoint": endpoint},
            )
        return False
    logger.info(
        "The endpoint %r is paused by %s. %s",
        endpoint,
        by,
        reason,
        extra={"action": "endpoint_paused", "endpoint": endpoint},
    )
    signals.endpoint_paused.send_robust(
        sender=EndpointState, endpoint=endpoint, using=using, by=by, reason=reason
    )
    return True


def resume(endpoint: str, *, by: str, using: str = DEFAULT_DB_ALIAS) -> bool:
    """Let the endpoint be called again; False where nothing kept anybody from it.

    Closes its breaker as well, which begins to count anew. The threads of this process look at
    once, those of others when they look next. Raises ``UnknownEndpoint``.
    """
    _refuse_unknown(endpoint)
    if not bars.resume(using, endpoint):
        return False
    backends.look_again(using)
    logger.info(
        "The endpoint %r is resumed by %s.",
        endpoint,
        by,
        extra={"action": "endpoint_resumed", "endpoint": endpoint},
    )
    signals.endpoint_resumed.send_robust(
        sender=EndpointState, endpoint=endpoint, using=using, by=by
    )
    return True


def _refuse_unknown(endpoint: str) -> None:
    """Raise for a slip of the pen; of ``alias:key`` the alias is what settings know."""
    alias, colon, _key = endpoint.partition(":")
    if not colon or alias not in endpoints:
        endpoints[endpoint]
