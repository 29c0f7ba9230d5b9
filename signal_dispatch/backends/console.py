"""Print the call instead of making it: for development, as Django's console e-mail backend."""

import json
import sys
from collections.abc import Sequence
from typing import Any, TextIO

from signal_dispatch import claims, lanes, masking, payloads, settling
from signal_dispatch.backends.base import BaseBackend
from signal_dispatch.concluding import tell
from signal_dispatch.drafts import sentence_of
from signal_dispatch.endpoints import endpoints
from signal_dispatch.exceptions import EndpointUnresolved, InvalidEndpoint, LeaseLost
from signal_dispatch.models import Delivery, State
from signal_dispatch.outbox import Lease
from signal_dispatch.preparing import prepare
from signal_dispatch.queueing import Recorded
from signal_dispatch.registry import registry
from signal_dispatch.settling import Settlement


class ConsoleBackend(BaseBackend):
    """Print each call to ``stream`` (standard output) and mark it delivered. No answer comes."""

    def __init__(self, alias: str, *, stream: TextIO | None = None, **options: Any) -> None:
        super().__init__(alias, **options)
        self._stream = stream

    def lease(self, using: str, endpoint: str) -> Lease | None:
        """Return a lease: the committing thread prints it itself."""
        return claims.own_lease()

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Print what was committed, and settle it."""
        lease = claims.own_lease()
        mine = [r for r in recorded if r.delivery.state == State.PENDING]
        leased = [r.delivery.pk for r in mine if r.leased]
        queue = claims.read_back(using, lease.holder, leased)
        # Nobody comes back for the others: they are printed now, whenever they would be due.
        others = [r.delivery.pk for r in mine if not r.leased]
        queue += claims.claim_ids(using, lease, others) if others else []
        waiting = {r.delivery.lane for r in recorded if r.delivery.lane}
        queue += lanes.release(using, waiting, lease).taken
        while queue:
            delivery = queue.pop(0)
            settlement = self._settled(delivery, using)
            if settlement is not None and settling.settle([settlement], using):
                tell([settlement], using, apart=False)
            if delivery.lane:
                queue += lanes.release(using, [delivery.lane], lease).taken

    def _settled(self, delivery: Delivery, using: str) -> Settlement | None:
        """Print it, and say what became of it; None where somebody else has it."""
        dispatch = registry.find(delivery.dispatch, delivery.model)
        try:
            drafted_late = dispatch is not None and not delivery.method
            settled = prepare(dispatch, delivery, using) if dispatch and drafted_late else None
        except LeaseLost:
            return None
        except Exception as error:  # noqa: BLE001 - whatever the site's code raises
            reason = sentence_of(dispatch, error) if dispatch else str(error)
            return Settlement(delivery, State.FAILED, error_class="build", reason=reason)
        if settled is not None:
            return settled
        self._print(delivery)
        reason = "Printed by the console backend, not sent."
        return Settlement(delivery, State.DELIVERED, reason=reason)

    def _print(self, delivery: Delivery) -> None:
        print(describe(delivery), file=self._stream or sys.stdout, flush=True)


def _place(delivery: Delivery) -> str:
    """Say where the endpoint is, or why that is not known; a RESOLVER is asked as for a call."""
    try:
        return f"at {endpoints.resolve(delivery.endpoint).host or '?'}"
    except InvalidEndpoint:
        return "at ?"
    except EndpointUnresolved as unresolved:
        return f"would wait: {unresolved}"


def describe(delivery: Delivery) -> str:
    """Return the call as text: the request line, the stored headers, the payload."""
    lines = [f"{delivery.method} {delivery.path or '/'}  ({delivery.endpoint} {_place(delivery)})"]
    lines += [f"{name}: {value}" for name, value in delivery.headers.items()]
    lines.append(f"Idempotency-Key: {delivery.uid}")
    lines += [f"traceparent: {delivery.trace}"] if delivery.trace else []
    body = masking.masked_body(delivery)
    if body is None:
        body = bytes(delivery.body)
    if body:
        payload = payloads.decode(body, payloads.content_type_of(delivery.headers))
        text = repr(payload) if isinstance(payload, bytes) else json.dumps(payload, indent=2)
        lines += ["", text]
    return "\n".join([*lines, "-" * 79])
