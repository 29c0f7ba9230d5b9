"""``envelope = "standard"``: the type always says the event that is sent."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.db import transaction

from signal_dispatch import Event, Outcome, enqueue
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.envelopes import retyped, type_of, wrap
from signal_dispatch.models import Delivery
from tests.sending import attempt
from tests.shop.models import Order

pytestmark = pytest.mark.django_db

CONTACTS = {
    "path": {"created": "contacts", "updated": "contacts/{remote_id}"},
    "method": {"created": "POST", "updated": "PATCH"},
    "on": ["created", "updated"],
    "remote_id": "id",
}


@pytest.fixture
def enveloped(declare):
    def enveloped(**attributes):
        return declare(Order, **{"envelope": "standard", "fields": ["number"]} | attributes)

    return enveloped


def told(receiver):
    return [request.json["type"] for request in receiver.requests]


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("created", "order.created"),
        ("Refunded", "order.refunded"),
        ("invoice.paid", "order.invoice.paid"),
        ("shipped in part!", "order.shipped_in_part_"),
        ("gelöscht", "order.gel_scht"),
    ],
)
def test_a_type_holds_nothing_that_may_not_stand_in_one(event, expected):
    assert type_of("order", event) == expected


def test_a_timestamp_is_utc_and_says_so():
    at = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=1)))

    assert wrap({"a": 1}, "order", "created", at) == {
        "type": "order.created",
        "timestamp": "2026-02-28T23:30:00.000000Z",
        "data": {"a": 1},
    }


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b'{"type":"order.updated"}', b'{"type":"order.updatedx","timestamp":1}']
)
def test_what_is_no_envelope_of_the_event_stays_as_it_is(body):
    assert retyped(body, "order", "updated", "created") == body


def test_a_payload_goes_in_its_envelope(enveloped, receiver):
    enveloped()
    before = datetime.now(UTC)
    Order.objects.create(number="A-1")
    attempt()

    (request,) = receiver.requests
    assert list(request.json) == ["type", "timestamp", "data"]
    assert (request.json["type"], request.json["data"]) == ("order.created", {"number": "A-1"})
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", request.json["timestamp"])
    assert before <= datetime.fromisoformat(request.json["timestamp"]) <= datetime.now(UTC)
    assert request.headers["Content-Type"] == "application/json"


def test_the_timestamp_is_the_event_s_at_every_attempt(enveloped, receiver):
    enveloped()
    Order.objects.create(number="A-1")
    receiver.reply(500)
    attempt()
    receiver.reply(200)
    attempt()

    first, second = receiver.requests
    assert first.body == second.body


def test_events_of_the_site_s_own_and_of_get_event_are_told(enveloped, receiver):
    def get_event(self, order, change):
        return "deleted" if order.status == "archived" else change.event

    enveloped(on=["updated", "Sent out"], get_event=get_event)
    order = Order.objects.create(number="A-1")
    enqueue(order, event="Sent out")
    order.status = "archived"
    order.save()
    attempt()

    assert told(receiver) == ["order.sent_out", "order.deleted"]


def test_a_transaction_is_told_as_its_net_event(enveloped, receiver):
    enveloped()
    with transaction.atomic():
        order = Order.objects.create(number="A-1")
        order.number = "A-2"
        order.save()
    attempt()

    assert told(receiver) == ["order.created"]
    assert receiver.requests[0].json["data"] == {"number": "A-2"}


def test_an_update_that_has_to_create_says_so_and_keeps_the_rest(enveloped, receiver):
    """The remote has no id yet: an UPDATED goes as CREATED, and its payload stays."""
    enveloped(**CONTACTS, fields=["number", "total"])
    order = Order.objects.create(number="ö-1", total="1.50")
    Delivery.objects.all().delete()
    order.save()
    (before,) = Delivery.objects.values_list("body", flat=True)
    receiver.reply(201, json={"id": 7})
    attempt()
    order.save()
    attempt()

    assert [r.method for r in receiver.requests] == ["POST", "PATCH"]
    assert told(receiver) == ["order.created", "order.updated"]
    assert receiver.requests[0].body == bytes(before).replace(b"order.updated", b"order.created")


def test_without_an_envelope_an_update_that_has_to_create_keeps_its_body(enveloped, receiver):
    enveloped(**CONTACTS, envelope="plain")
    Order.objects.create(number="A-1")
    Delivery.objects.update(event="updated")
    receiver.reply(201, json={"id": 7})
    attempt()

    assert receiver.requests[0].json == {"number": "A-1"}


def test_what_replaces_a_created_is_told_as_created(enveloped, receiver):
    enveloped(latest_wins=True, delay=5)
    order = Order.objects.create(number="A-1")
    order.number = "A-2"
    order.save()
    attempt()

    assert told(receiver) == ["order.created"]
    assert receiver.requests[0].json["data"] == {"number": "A-2"}


def test_what_the_remote_lost_is_told_as_created(enveloped, receiver):
    def get_outcome(self, delivery, response):
        return Outcome.recreate() if response.status_code == 404 else None

    enveloped(get_outcome=get_outcome)
    order = Order.objects.create(number="A-1")
    Delivery.objects.all().delete()
    order.save()
    receiver.script = lambda request: (404 if len(receiver.requests) < 2 else 201, {}, b"{}")
    attempt()

    assert told(receiver) == ["order.updated", "order.created"]


@pytest.mark.parametrize("use_tz", [True, False])
def test_what_is_taken_when_it_is_sent_has_the_time_of_its_record(
    enveloped, receiver, settings, use_tz
):
    settings.USE_TZ = use_tz
    settings.TIME_ZONE = "America/New_York"
    enveloped(snapshot="send")
    Order.objects.create(number="A-1")
    Delivery.objects.update(created_at=DatabaseNow(-3 * 3600))
    attempt()

    (delivery,) = Delivery.objects.all()
    told_at = datetime.fromisoformat(receiver.requests[0].json["timestamp"])
    if use_tz:
        assert told_at == delivery.created_at
    assert told(receiver) == ["order.created"]
    assert json.loads(bytes(delivery.body))["type"] == "order.created"
    ago = (datetime.now(UTC) - told_at).total_seconds()
    assert ago == pytest.approx(3 * 3600, abs=60)


def test_without_a_payload_there_is_no_envelope(enveloped, receiver):
    enveloped(fields=(), on=[Event.CREATED])
    Order.objects.create(number="A-1")
    attempt()

    assert receiver.requests[0].body == b""
