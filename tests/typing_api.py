"""What the types of the public API promise: mypy and pyright read it, and nothing runs it.

A ``type: ignore`` marks what they have to refuse; both complain of one that is not needed.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, assert_type
from unittest import TestCase

from django.core.checks import CheckMessage
from django.db.models import QuerySet
from requests import Session

from signal_dispatch import (
    Change,
    Event,
    ModelDispatch,
    Outcome,
    Response,
    RetryPolicy,
    enqueue,
    register,
    suppressed,
)
from signal_dispatch.alarms import Alarm, AlarmKind
from signal_dispatch.cancelling import cancel, skip
from signal_dispatch.managers import DispatchQuerySet
from signal_dispatch.mocking import EndpointMock, ReceivedCall
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.pausing import pause, resume
from signal_dispatch.repairing import retry
from signal_dispatch.repointing import Target, repoint
from signal_dispatch.signing import sign, verify
from signal_dispatch.testing import (
    Deliveries,
    DispatchTestMixin,
    drain,
    mock_endpoint,
    real_network,
    recorded,
)
from signal_dispatch.tracing import traced
from tests.shop.models import Customer, Order

# Declarations.


@register(Order)
class OrderToCRM(ModelDispatch[Order]):
    """Set and override everything that there is."""

    name = "shop.OrderToCRM"
    endpoint = "crm"
    on = [Event.CREATED, Event.UPDATED, "refunded"]
    path = {Event.CREATED: "orders", Event.UPDATED: "orders/{remote_id}", "refunded": "refunds"}
    method = {Event.CREATED: "POST", Event.UPDATED: "PATCH", "refunded": "POST"}
    fields = ["number", "customer__email"]
    m2m_fields = ("tags",)
    when_changed = ["status"]
    track = ["total"]
    headers = {"Accept-Language": "de"}
    envelope = "standard"
    sensitive = ["number"]
    remote_id = "data.id"
    ordered = True
    latest_wins = True
    delay = 2.5
    merge = False
    retry = RetryPolicy(delays=[0, 5, 60])
    snapshot = "send"

    def get_event(self, instance: Order, change: Change[Order]) -> str | None:
        return Event.DELETED if change.became("status", "draft") else change.event

    def should_send(self, instance: Order, change: Change[Order]) -> bool:
        assert_type(change.instance, Order)
        assert_type(change.changed("status"), bool)
        return True

    def get_endpoint(self, instance: Order, change: Change[Order]) -> list[str]:
        return ["crm", "slack"]

    def get_method(self, instance: Order, change: Change[Order]) -> str:
        return super().get_method(instance, change)

    def get_path(self, instance: Order, change: Change[Order]) -> str:
        return super().get_path(instance, change)

    def get_path_values(self, instance: Order, change: Change[Order]) -> dict[str, int]:
        return {"year": 2026}

    def get_headers(self, instance: Order, change: Change[Order]) -> Mapping[str, str]:
        return {**super().get_headers(instance, change), "X-Number": "7"}

    def get_payload(self, instance: Order, change: Change[Order]) -> dict[str, Any]:
        return {"id": instance.pk, "was": change.old}

    def encode(self, payload: Any) -> tuple[bytes, str]:
        return b"", "text/csv"

    def get_files(self, delivery: Delivery) -> dict[str, bytes] | None:
        return {"scan": b"..."}

    def send(self, delivery: Delivery, session: Session) -> Outcome:
        return Outcome.delivered()

    def get_outcome(self, delivery: Delivery, response: Response) -> Outcome | None:
        return Outcome.rejected("no") if response.json().get("error") else None

    def get_remote_id(self, delivery: Delivery, response: Response) -> str:
        return response.text

    def handle_response(self, delivery: Delivery, response: Response) -> None:
        assert_type(delivery.is_latest, bool)
        assert_type(response.status_code, int)

    def handle_failure(self, delivery: Delivery, attempt: Attempt | None) -> None:
        assert_type(delivery.log_extra("mine"), dict[str, Any])

    def check(self) -> list[CheckMessage]:
        return []


@register(Order, Customer)
class Anything(ModelDispatch[Any]):
    """One class for two models."""

    fields = ()


@register(Order)
class Unparametrized(ModelDispatch):  # type: ignore[type-arg]
    """As the documents print it; strict checkers want the model, others don't ask."""

    endpoint = "crm"


class Wrong(ModelDispatch[Order]):
    """What the types refuse."""

    endpoint = 7  # type: ignore[assignment]
    retry = {"delays": [0]}  # type: ignore[assignment]

    def should_send(self, instance: Order) -> bool:  # type: ignore[override]
        return True

    def get_payload(self, instance: Customer, change: Change[Order]) -> Any:  # type: ignore[override]
        return None


class NoModel(ModelDispatch[int]):  # type: ignore[type-var]
    """What is no model has no changes."""


def registration() -> None:
    """The decorator gives back the class that it got."""
    assert_type(OrderToCRM, type[OrderToCRM])
    dispatch = OrderToCRM(Order)
    assert_type(dispatch.model, type[Order])
    assert_type(dispatch.events, tuple[str, ...])
    assert_type(OrderToCRM.get_name(), str)
    register(int)  # type: ignore[arg-type]
    register(Order)(int)  # type: ignore[type-var]


# What hooks are given, and give.


def change(change: Change[Order]) -> None:
    """A change knows its model, and stays as it is."""
    assert_type(change.event, str)
    assert_type(change.instance, Order)
    assert_type(change.using, str)
    assert_type(change.old, Mapping[str, Any])
    assert_type(change.changed("status"), bool)
    assert_type(change.became("status", "paid"), bool)
    assert_type(Change(Event.CREATED, Order(), "default"), Change[Order])
    change.event = "paid"  # type: ignore[misc]


def response(response: Response) -> None:
    """A response has the types of that of requests."""
    assert_type(response.status_code, int)
    assert_type(response.headers, Mapping[str, str])
    assert_type(response.content, bytes)
    assert_type(response.text, str)
    assert_type(response.json(), Any)
    assert_type(response.ok, bool)
    assert_type(response.truncated, bool)
    assert_type(response.elapsed, timedelta)
    assert_type(Response(200, {"ETag": "7"}, b"{}"), Response)


def outcome() -> None:
    """Each way to make one."""
    assert_type(Outcome.delivered(), Outcome)
    assert_type(Outcome.retry(), Outcome)
    assert_type(Outcome.retry(after=30, reason="They are moving house."), Outcome)
    assert_type(Outcome.rejected("They know it already."), Outcome)
    assert_type(Outcome.recreate(), Outcome)
    assert_type(Outcome.retry().after, float | None)
    Outcome.rejected()  # type: ignore[call-arg]


def policy() -> None:
    """Numbers of either kind, in any sequence."""
    assert_type(RetryPolicy(), RetryPolicy)
    assert_type(RetryPolicy(delays=(0, 2.5), jitter=0), RetryPolicy)
    assert_type(RetryPolicy.exponential(8, first=5, factor=3, cap=3600), RetryPolicy)
    assert_type(RetryPolicy().attempts, int)
    assert_type(RetryPolicy().delay_before(2), float | None)
    RetryPolicy(delays=["5"])  # type: ignore[list-item]


def event() -> None:
    """Members are strings."""
    name: str = Event.CREATED
    assert_type(Event.CREATED.value, str)
    assert_type(Event(name), Event)


# Functions.


def functions(order: Order, delivery: Delivery) -> None:
    """What is called from a site's code."""
    assert_type(enqueue(order), int)
    assert_type(enqueue(Order.objects.all(), event="refunded"), int)
    assert_type(enqueue(order, Event.CREATED, dispatch=OrderToCRM), int)
    assert_type(enqueue(order, dispatch="shop.OrderToCRM"), int)
    enqueue([order])  # type: ignore[arg-type]
    with suppressed(), suppressed(OrderToCRM, "shop.Other") as nothing:
        assert_type(nothing, None)
    with traced("00-..."):
        pass
    rows = Delivery.objects.filter(endpoint="crm")
    assert_type(retry(rows), int)
    assert_type(cancel(rows, "The tenant left."), int)
    assert_type(skip(rows, "It blocks the others."), int)
    assert_type(repoint(rows, Target(endpoint="hubspot")), int)
    assert_type(pause("crm", by="me"), bool)
    assert_type(resume("crm", by="me"), bool)
    assert_type(sign(["whsec_..."], id="7", timestamp=0, body=b""), dict[str, str])
    verify(b"", {}, ["whsec_..."])
    assert_type(delivery.payload, Any)


def receiver(alarm: Alarm) -> None:
    """What ``alarm_raised`` carries."""
    assert_type(alarm.kind, AlarmKind)
    assert_type(alarm.text, str)
    assert_type(alarm.delivery, Delivery | None)


def failed_at(crm: QuerySet[Delivery]) -> int:
    """A queryset as a site's own functions name it is as good."""
    cancel(crm, "The contract ended.")
    skip(crm, "It blocks the others.")
    repoint(crm, Target(endpoint="hubspot"))
    return retry(crm)


class OrderQuerySet(DispatchQuerySet[Order]):
    """A queryset of the site's own."""

    def paid(self) -> int:
        return self.filter(status="draft").update(status="paid")


# Tests of a site.


def with_fixtures(deliveries: Deliveries, mock_endpoint: Callable[[str], EndpointMock]) -> None:
    """The fixtures of the pytest plugin, as a test of a site annotates them."""
    crm = mock_endpoint("crm")
    crm.reply(201, json={"id": "c-7"}, method="PUT", path="orders/A-1", query={"q": 1})
    crm.fail(TimeoutError, times=2)
    assert_type(crm.calls, list[ReceivedCall])
    assert_type(crm.calls[0].json, Any)
    assert_type(crm.calls[0].body, bytes)
    assert_type(deliveries[0], Delivery)
    assert_type(deliveries[1:], list[Delivery])
    assert_type(deliveries.send(until_done=True), list[Delivery])
    as_sequence: Sequence[Delivery] = deliveries
    assert_type(len(as_sequence), int)


def with_context_managers() -> None:
    """What does without fixtures."""
    mocked: AbstractContextManager[EndpointMock] = mock_endpoint("crm")
    with mocked as crm, recorded() as made, real_network():
        assert_type(crm, EndpointMock)
        assert_type(made, Deliveries)
    drain(timeout=3)


class OrderTests(DispatchTestMixin, TestCase):
    """The mixin."""

    def test_order(self) -> None:
        assert_type(self.deliveries, Deliveries)
        assert_type(self.mock_endpoint("crm"), EndpointMock)
