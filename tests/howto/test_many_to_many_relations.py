"""The how-to on many-to-many relations."""

import pytest

from tests.howto.pages import Page
from tests.once import ONCE
from tests.shop.models import Order, Tag

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/many-to-many-relations")
DISPATCH = PAGE.block("class OrderToCRM")


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture
def orders(write, deliveries, mock_endpoint):
    write(DISPATCH)
    mock_endpoint("crm").reply(200)
    made = [Order.objects.create(number=number) for number in "AB"]
    deliveries.send()
    return made


def told(deliveries):
    pending = [made for made in deliveries if made.state != "delivered"]
    found = [(made.event, made.payload["number"], made.payload["tags"]) for made in pending]
    deliveries.send()
    return found


def test_declaration_has_no_fault(write, faults):
    write(DISPATCH)

    assert faults() == set()


@pytest.mark.parametrize(
    "change",
    [
        lambda order, tag: order.tags.add(tag),
        lambda order, tag: order.tags.set([tag]),
        lambda order, tag: tag.order_set.add(order),
    ],
    ids=["add", "set", "other side"],
)
def test_a_change_from_either_side_tells_the_order(orders, deliveries, change):
    tag = Tag.objects.create()
    change(orders[0], tag)

    assert told(deliveries) == [("updated", "A", [tag.pk])]


@pytest.mark.parametrize(
    "change",
    [lambda order, tag: order.tags.remove(tag), lambda order, tag: order.tags.clear()],
    ids=["remove", "clear"],
)
def test_what_is_taken_away_is_told(orders, deliveries, change):
    tag = Tag.objects.create()
    orders[0].tags.add(tag)
    deliveries.send()
    change(orders[0], tag)

    assert told(deliveries) == [("updated", "A", [])]


def test_each_order_that_had_a_deleted_tag_is_told_once(orders, deliveries):
    tags = [Tag.objects.create() for _ in range(3)]
    for order in orders:
        order.tags.set(tags)
    deliveries.send()
    Tag.objects.all().delete()

    assert told(deliveries) == [("updated", "A", []), ("updated", "B", [])]


def test_an_order_that_goes_is_not_told_as_updated(orders, deliveries):
    orders[0].tags.add(Tag.objects.create())
    deliveries.send()
    orders[0].delete()

    assert told(deliveries) == []


def test_rows_of_the_through_model_itself_are_not_noticed(orders, deliveries):
    Order.tags.through.objects.create(order=orders[0], tag=Tag.objects.create())

    assert told(deliveries) == []
