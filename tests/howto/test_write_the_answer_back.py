"""The how-to on answers."""

import pytest
from django.core.management import call_command

from signal_dispatch import enqueue
from signal_dispatch.models import Delivery
from tests.howto.pages import Page
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Order, Place

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/write-the-answer-back")
ANSWERED = PAGE.block("class OrderToCRM")
LATEST = PAGE.block("class PlaceToMaps")
TESTS = PAGE.block("def test_order_knows_its_crm_id")
IMPORTS = ANSWERED.partition("@register")[0]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture
def maps(settings, mock_endpoint):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"maps": {"URL": "https://maps.example.com/v1/"}}
    return mock_endpoint("maps")


def test_declarations_have_no_fault(write, faults, settings):
    maps = {"URL": "https://maps.example.com/v1/"}
    # Not |=, which would change the settings of all tests that follow.
    settings.SIGNAL_DISPATCH_ENDPOINTS = {**settings.SIGNAL_DISPATCH_ENDPOINTS, "maps": maps}
    write(ANSWERED, LATEST)

    assert faults() == set()


@pytest.mark.parametrize(
    "name", ["test_order_knows_its_crm_id", "test_order_knows_why_the_crm_refused_it"]
)
def test_tests_of_the_page_pass(write, db, deliveries, mock_endpoint, name):
    write(ANSWERED, TESTS)[name](db, deliveries, mock_endpoint)


def test_other_dispatches_hear_of_what_is_written_back(write, declare, deliveries, mock_endpoint):
    write(ANSWERED)
    mock_endpoint("crm").reply(200, json={"id": "c-7"})
    order = Order(number="A-1")
    Order.objects.bulk_create([order])
    enqueue(order)
    declare(Order, name="shop.OrderToMail", fields=["crm_id"])
    deliveries.send()

    assert [d.dispatch for d in deliveries] == ["shop.OrderToCRM", "shop.OrderToMail"]
    assert deliveries[1].payload == {"crm_id": "c-7"}
    assert deliveries[1].hops == 1


def test_an_answer_to_an_old_state_is_left(write, maps, deliveries):
    write(IMPORTS, LATEST)
    maps.reply(200, json={"lat": 1.0, "lon": 2.0}, query={"address": "Oslo"})
    maps.reply(200, json={"lat": 3.0, "lon": 4.0}, query={"address": "Bergen"})
    place = Place.objects.create(address="Oslo")
    place.address = "Bergen"
    place.save()
    latest = [made.is_latest for made in deliveries]
    deliveries.send()

    place.refresh_from_db()
    assert latest == [False, True]
    assert (place.lat, place.lon) == (3.0, 4.0)
    assert [call.method for call in maps.calls] == ["GET", "GET"]


def test_old_answer_writes_nothing(write, maps, deliveries):
    write(IMPORTS, LATEST)
    maps.reply(200, json={"lat": 1.0, "lon": 2.0}, query={"address": "Oslo"})
    maps.fail(503, path="search")
    place = Place.objects.create(address="Oslo")
    place.address = "Bergen"
    place.save()
    deliveries.send()

    place.refresh_from_db()
    assert [d.state for d in deliveries] == ["delivered", "pending"]
    assert place.lat is None


def test_a_handler_that_raises_is_run_again_without_a_call(write, receiver):
    names = write(ANSWERED)
    order = Order.objects.create(number="A-1")
    receiver.script = lambda request: (200, {}, b'{"key": "c-7"}')
    while Delivery.objects.unfinished().exists():
        attempt()
    made = Delivery.objects.get()
    assert (made.state, made.error_class, made.attempts) == ("failed", "handler", 1)
    assert "handle_response() raised KeyError" in made.reason

    def fixed(self, delivery, response):
        orders = Order.objects.filter(pk=delivery.object_pk)
        orders.update(crm_id=response.json()["key"])

    names["OrderToCRM"].handle_response = fixed
    call_command("dispatch_retry", error_class="handler", database=["default"], verbosity=0)
    attempt()

    order.refresh_from_db()
    assert order.crm_id == "c-7"
    assert Delivery.objects.get().state == "delivered"
    assert len(receiver.requests) == 1


def test_a_long_answer_is_never_handled(write, receiver):
    write(ANSWERED)
    Order.objects.create(number="A-1")
    receiver.script = lambda request: (200, {}, b'{"id": "' + b"7" * 70_000 + b'"}')
    attempt()

    made = Delivery.objects.get()
    assert (made.state, made.error_class) == ("failed", "too_large")


def test_what_a_failing_handle_failure_wrote_is_rolled_back(write, receiver):
    write(ANSWERED + "        raise RuntimeError('no')\n")
    order = Order.objects.create(number="A-1")
    receiver.reply(422)
    attempt()

    order.refresh_from_db()
    made = Delivery.objects.get()
    assert order.notes == ""
    assert made.state == "failed"
    assert "handle_failure() raised RuntimeError: no" in made.reason


def test_handle_failure_is_not_called_for_what_could_not_be_built(write, as_in_production):
    write(ANSWERED)
    order = Order.objects.create(number="..")

    order.refresh_from_db()
    assert Delivery.objects.get().state == "failed"
    assert order.notes == ""
