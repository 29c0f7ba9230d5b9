"""What happened to the calls of the newest orders so far, and what comes next."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from demo_site.shop.models import Order
from signal_dispatch.models import Attempt, Delivery, State

SHOWN_ORDERS = 20
#: Attempts of each delivery that are shown: the last ones.
SHOWN_ATTEMPTS = 5


@dataclass(frozen=True)
class Moment:
    """Something that happened to a delivery, or will; ``look`` is how it is drawn."""

    at: datetime | None
    text: str
    look: str = "quiet"


@dataclass(frozen=True)
class Call:
    """A delivery with its timeline."""

    delivery: Delivery

    @property
    def timeline(self) -> list[Moment]:
        """What happened, in order, and what comes next."""
        delivery = self.delivery
        attempts = sorted(delivery.attempt_set.all(), key=lambda attempt: attempt.number)
        left_out = attempts[:-SHOWN_ATTEMPTS]
        return [
            Moment(delivery.created_at, "recorded with the save"),
            *([Moment(None, f"{len(left_out)} more attempts")] if left_out else []),
            *(_of_attempt(attempt) for attempt in attempts[-SHOWN_ATTEMPTS:]),
            *_outlook(delivery),
        ]


def orders_with_calls() -> list[tuple[Order, list[Call]]]:
    """Return the newest orders, each with its calls, the latest last."""
    orders = Order.objects.select_related("customer").order_by("-pk")[:SHOWN_ORDERS]
    calls: dict[int, list[Call]] = {order.pk: [] for order in orders}
    found = Delivery.objects.filter(model="shop.order", object_pk__in=list(calls))
    for delivery in found.order_by("pk").prefetch_related("attempt_set"):
        calls[delivery.object_pk].append(Call(delivery))
    return [(order, calls[order.pk]) for order in orders]


def _of_attempt(attempt: Attempt) -> Moment:
    result = attempt.status_code or attempt.error_class or attempt.outcome
    text = f"attempt {attempt.number}: {result} in {attempt.duration_ms} ms"
    good = attempt.outcome == "delivered"
    return Moment(attempt.started_at, text, "good" if good else "bad")


def _outlook(delivery: Delivery) -> Iterator[Moment]:
    if delivery.state == State.WAITING:
        yield Moment(None, "waits for an earlier call of this order", "busy")
    elif delivery.state == State.PENDING:
        sending = Moment(None, "is being sent", "busy")
        yield sending if delivery.held_by else Moment(delivery.available_at, "next attempt", "busy")
    else:
        look = {State.DELIVERED: "good", State.FAILED: "bad"}.get(State(delivery.state), "quiet")
        yield Moment(delivery.finished_at, str(delivery.get_state_display()), look)
