"""The outbox's rows: keys of every kind, payloads, and who is the latest."""

import json
import uuid

import pytest
from django.core import serializers

from signal_dispatch.keys import key_as_text, key_from_text, plain_key
from signal_dispatch.models import Attempt, Delivery, RemoteObject
from tests.deliveries import delivery
from tests.shop.models import Order, Seat, Shipment

UID = uuid.UUID("0189f7ea-ae2c-7809-8aeb-b819cf5e9e7f")


@pytest.mark.parametrize(
    ("pk", "text", "back"),
    [
        (7, "7", 7),
        ("A/1", '"A/1"', "A/1"),
        ("7", '"7"', "7"),
        (UID, f'"{UID}"', str(UID)),
        (("A", 3), '["A",3]', ("A", 3)),
    ],
)
def test_a_key_is_json_text_and_comes_back_as_the_value(pk, text, back):
    assert key_as_text(pk) == text
    assert key_from_text(text) == back
    assert plain_key(pk) == back


@pytest.mark.django_db
def test_objects_are_found_by_the_key_of_their_delivery():
    order = Order.objects.create(number="A-1")
    objects = [order, Shipment.objects.create(order=order), Seat.objects.create(row="A", number=3)]
    for thing in objects:
        made = delivery(object_pk=thing.pk)
        made.refresh_from_db()
        assert type(thing).objects.get(pk=made.object_pk) == thing
        assert Delivery.objects.get(object_pk=thing.pk) == made


@pytest.mark.django_db
def test_a_delivery_survives_dump_and_load():
    made = delivery(object_pk=("A", 3), headers={"X": "1"}, body=b"\x00\xff")
    made.refresh_from_db()
    dumped = serializers.serialize("json", [made])
    assert json.loads(dumped)[0]["fields"]["object_pk"] == '["A",3]'
    Delivery.objects.all().delete()
    (loaded,) = serializers.deserialize("json", dumped)
    loaded.save()

    again = Delivery.objects.get(pk=made.pk)
    assert (again.uid, bytes(again.body), again.headers) == (made.uid, b"\x00\xff", {"X": "1"})


@pytest.mark.parametrize(
    ("content_type", "body", "payload"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/x-www-form-urlencoded", b"a=1", {"a": "1"}),
        ("application/octet-stream", b"\x00", b"\x00"),
    ],
)
def test_the_payload_is_the_decoded_body(content_type, body, payload):
    made = Delivery(headers={"content-TYPE": content_type}, body=memoryview(body))

    assert made.payload == payload


@pytest.mark.django_db
@pytest.mark.parametrize("lane", ["", "a"])
def test_the_latest_is_the_last_for_its_object(lane):
    first = delivery(lane=lane, state="delivered")
    assert first.is_latest
    delivery(lane="b" if lane else "", object_pk=2)
    assert first.is_latest
    second = delivery(lane=lane, state="failed")

    assert not first.is_latest
    assert second.is_latest


@pytest.mark.django_db
def test_rows_are_chosen_by_where_they_are():
    pending, waiting = delivery(held_by="me"), delivery(state="waiting", held_by="me")
    delivery(state="delivered", held_by="me")
    others = delivery(held_by="you")

    assert set(Delivery.objects.unfinished()) == {pending, waiting, others}
    ids = [pending.pk, waiting.pk, others.pk]
    assert list(Delivery.objects.all().held("me", ids)) == [pending]


def test_each_row_names_itself():
    made = Delivery(
        pk=3, dispatch="shop.Told", event="updated", model="shop.order", object_pk=7, endpoint="crm"
    )
    known = RemoteObject(model="shop.order", object_pk=7, endpoint="crm", remote_id="c-7")

    assert str(made) == "3: shop.Told updated shop.order 7"
    assert str(Attempt(delivery=made, number=2, outcome="retry")) == "3/2: retry"
    assert str(known) == "shop.order 7 at crm: c-7"
