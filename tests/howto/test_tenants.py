"""The how-to on endpoints of tenants: its site works, and what it says of those that left."""

import inspect

import pytest

from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.howto.pages import Page
from tests.howto.pages_of_operations import commands, run
from tests.once import ONCE
from tests.shop import tenants
from tests.shop.models import Customer, Order, Subscription

pytestmark = [ONCE, pytest.mark.django_db]

NAME = "how-to/tenants"
PAGE = Page(NAME)
ENTRY = PAGE.block("RESOLVER")
MODEL = PAGE.block("class Subscription")
DISPATCH = PAGE.block("OrderToSubscribers")
RESOLVER = PAGE.block("def endpoint_of")
LEFT = PAGE.block("The tenant left.")
TESTS = PAGE.block("def test_order_is_told")


@pytest.fixture
def site(write):
    """The settings and the dispatch of the page."""
    return write(ENTRY, DISPATCH)


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []
    assert {name for name, _options in commands(NAME)} == {"dispatch_status", "dispatch_worker"}


def test_the_model_and_the_resolver_are_those_of_the_tests():
    assert inspect.getsource(Subscription) == MODEL
    assert inspect.getsource(tenants) == RESOLVER.replace("from shop", "from tests.shop")


def test_the_site_has_no_fault(site, faults):
    assert faults() == set()


@pytest.mark.parametrize(
    "name",
    [
        "test_order_is_told_to_the_subscriber",
        "test_order_waits_for_a_subscriber_that_is_gone",
    ],
)
def test_tests_of_the_page_pass(site, write, db, deliveries, mock_endpoint, name):
    names = write(TESTS, Customer=Customer, Order=Order, Subscription=Subscription)
    names[name](db, deliveries, mock_endpoint)


def test_what_waits_for_a_tenant_that_left_is_cancelled_and_the_rest_is_not(site):
    waits, under_way, of_another = (
        delivery(endpoint="tenant:42", lane="a"),
        delivery(endpoint="tenant:42", held_by="somebody", available_at=DatabaseNow(60)),
        delivery(endpoint="tenant:43"),
    )
    behind = delivery(endpoint="tenant:42", lane="a", state="waiting", available_at=None)
    run(LEFT)

    ended = Delivery.objects.filter(state="cancelled", reason="The tenant left.")
    assert set(ended.values_list("pk", flat=True)) == {waits.pk, behind.pk}
    left = Delivery.objects.filter(state="pending").values_list("pk", flat=True)
    assert set(left) == {under_way.pk, of_another.pk}
