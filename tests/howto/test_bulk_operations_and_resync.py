"""The how-to on bulk operations."""

import io

import pytest
from django.core import serializers
from django.core.management import call_command
from django.db import connection
from django.test.utils import isolate_apps

from signal_dispatch.conf import settings as ours
from signal_dispatch.endpoints import endpoints
from signal_dispatch.managers import DispatchManager
from tests.howto.pages import Page
from tests.once import ONCE
from tests.shop.models import Order, Ticket

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/bulk-operations-and-resync")
MANAGED = PAGE.block("class Ticket")
SAYING = PAGE.block("def mark_sent")
SILENT = PAGE.block("def import_from_crm")
RATE = PAGE.block("RATE")


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture
def page(write, declare):
    declare(Order, name="shop.OrderToCRM")
    return write(SAYING, SILENT)


def events(deliveries):
    return [(d.event, d.payload["number"]) for d in deliveries if d.event != "deleted"]


def load_fixture(orders):
    for loaded in serializers.deserialize("json", serializers.serialize("json", orders.all())):
        loaded.save()


OPERATIONS = {
    "create": (lambda orders: orders.create(number="A-2"), ["created"]),
    "get_or_create": (lambda orders: orders.get_or_create(number="A-2"), ["created"]),
    "update_or_create": (
        lambda orders: orders.update_or_create(number="A-1", defaults={"status": "paid"}),
        ["updated"],
    ),
    "delete": (lambda orders: orders.all().delete(), ["deleted"]),
    "bulk_create": (lambda orders: orders.bulk_create([Order(number="A-2")]), []),
    "bulk_update": (lambda orders: orders.bulk_update(orders.all(), ["status"]), []),
    "update": (lambda orders: orders.update(status="paid"), []),
    "sql": (lambda orders: connection.cursor().execute("UPDATE shop_order SET total = 1"), []),
    "loaddata": (load_fixture, []),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_make_the_calls_of_the_table(declare, deliveries, name):
    operate, told = OPERATIONS[name]
    Order.objects.bulk_create([Order(number="A-1")])
    declare(Order)
    operate(Order.objects)

    assert [d.event for d in deliveries] == told


def test_check_names_models_whose_bulk_operations_make_no_call(page):
    call_command("check", stdout=(out := io.StringIO()), stderr=out)

    assert "signal_dispatch.I004" in out.getvalue()


def test_model_of_the_page_has_a_manager_that_tells(write):
    with isolate_apps("tests.shop"):
        ticket = write(MANAGED, __name__="tests.shop.models")["Ticket"]

        assert type(ticket.objects) is type(Ticket.objects) is DispatchManager


def test_manager_tells_of_bulk_operations(declare, deliveries):
    declare(Ticket, when_changed=["status"])
    Ticket.objects.bulk_create([Ticket(number="T-1"), Ticket(number="T-2", place=1)])
    Ticket.objects.filter(number="T-1").update(status="sold")
    Ticket.objects.update(status="sold")
    ticket = Ticket.objects.get(number="T-2")
    ticket.status = "used"
    Ticket.objects.bulk_update([ticket], ["status"])

    assert events(deliveries) == [
        ("created", "T-1"),
        ("created", "T-2"),
        ("updated", "T-1"),
        ("updated", "T-2"),
        ("updated", "T-2"),
    ]


def test_what_changed_in_bulk_can_be_said(page, deliveries):
    page["take_in"]([Order(number="A-1"), Order(number="A-2")])
    page["mark_sent"](["A-2"])

    assert events(deliveries) == [("created", "A-1"), ("created", "A-2"), ("updated", "A-2")]
    assert deliveries[2].payload["status"] == "sent"


def test_what_is_imported_is_not_told(page, declare, deliveries):
    declare(Order, name="shop.OrderToWarehouse")
    page["import_from_crm"]([{"number": "A-1", "status": "paid"}])

    assert [d.dispatch for d in deliveries] == ["shop.OrderToWarehouse"]
    assert Order.objects.get().status == "paid"


def resync(*options):
    out = io.StringIO()
    call_command("dispatch_resync", "shop.Order", *options, stdout=out, verbosity=0)
    return out.getvalue()


def test_all_objects_are_told(page, deliveries):
    Order.objects.bulk_create([Order(number="A-1", status="paid"), Order(number="A-2")])
    assert "1 deliveries would be recorded" in resync("--filter", "status=paid", "--dry-run")
    assert len(deliveries) == 0

    resync("--filter", "status=paid")
    resync("--missing")
    assert events(deliveries) == [("updated", "A-1"), ("created", "A-2")]


def test_rate_of_the_page_is_one(write):
    write(RATE)

    assert ours.endpoints["crm"]["RATE"] == "10/s"
    assert endpoints["crm"].rate is not None
