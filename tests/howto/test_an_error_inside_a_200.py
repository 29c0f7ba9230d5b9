"""The how-to on outcomes."""

from datetime import timedelta

import pytest

from signal_dispatch.models import Delivery
from tests.howto.pages import Page
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Order

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/an-error-inside-a-200")
JUDGED = PAGE.block("class OrderToCRM")
TEST = PAGE.block("def test_busy_crm")


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture
def crm(write, mock_endpoint):
    write(JUDGED)
    return mock_endpoint("crm")


def test_declaration_has_no_fault(write, faults):
    write(JUDGED)

    assert faults() == set()


def test_the_test_of_the_page_passes(write, db, deliveries, mock_endpoint):
    write(JUDGED, TEST)["test_busy_crm_is_asked_again"](db, deliveries, mock_endpoint)


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [
        ({"status": 409}, "delivered", ""),
        ({"status": 201, "json": {"ok": False}}, "delivered", ""),
        ({"status": 200, "json": {"ok": True}}, "delivered", ""),
        ({"status": 503}, "pending", "It answered 503 Service Unavailable."),
        ({"status": 200, "body": "<h1>Oops</h1>"}, "pending", "The CRM answered no JSON."),
        (
            {"status": 200, "json": {"ok": False, "error": "no such product"}},
            "failed",
            "The CRM refused it: no such product.",
        ),
    ],
)
def test_answers_mean_what_the_page_says(crm, deliveries, answer, state, reason):
    crm.reply(**answer)
    Order.objects.create(number="A-1")
    deliveries.send()

    (made,) = deliveries
    assert (made.state, made.reason) == (state, reason)


def test_after_is_the_least_that_it_waits(crm, deliveries):
    crm.reply(200, json={"ok": False, "error": "busy"})
    Order.objects.create(number="A-1")
    deliveries.send()

    (made,) = deliveries
    assert made.available_at - made.created_at >= timedelta(seconds=60)


def test_what_raises_is_asked_again_without_a_call(write, receiver):
    write(JUDGED)
    receiver.script = lambda request: (200, {}, b"[]")
    Order.objects.create(number="A-1")
    while Delivery.objects.unfinished().exists():
        attempt()

    made = Delivery.objects.get()
    assert (made.state, made.error_class) == ("failed", "handler")
    assert "get_outcome() raised TypeError" in made.reason
    assert len(receiver.requests) == 1


def test_a_409_without_the_id_that_is_needed_is_failed(write, deliveries, mock_endpoint):
    write(JUDGED.replace("fields =", 'remote_id = "id"\n    fields ='))
    mock_endpoint("crm").reply(409, json={"error": "have it"})
    Order.objects.create(number="A-1")
    deliveries.send()

    assert (deliveries[0].state, deliveries[0].error_class) == ("failed", "handler")
