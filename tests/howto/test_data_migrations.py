"""The how-to on data migrations, with historical models as Django makes them."""

from io import StringIO
from types import SimpleNamespace

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.state import ProjectState

from signal_dispatch import Event, ModelDispatch, suppressed
from signal_dispatch.models import Delivery
from tests.howto.pages import Page
from tests.howto.pages_of_operations import commands, run
from tests.once import ONCE
from tests.shop.models import Order, Ticket

pytestmark = [ONCE, pytest.mark.django_db(databases=["default", "other"])]

NAME = "how-to/data-migrations"
PAGE = Page(NAME)
ARCHIVE = run(PAGE.block("archive_sent_orders"))
DELETE = run(PAGE.block("delete_drafts"))

EDITOR = SimpleNamespace(connection=connection)


@pytest.fixture(scope="module")
def apps():
    return ProjectState.from_apps(Order._meta.apps).apps


@pytest.fixture
def orders():
    with suppressed():
        for number, status in (("A", "sent"), ("B", "paid"), ("C", "sent"), ("D", "draft")):
            Order.objects.create(number=number, status=status)


def told():
    return [(made.event, made.payload) for made in Delivery.objects.order_by("id")]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []
    names = [name for name, _options in commands(NAME)]
    assert names == ["dispatch_retry", "dispatch_pause", "dispatch_pause", "dispatch_resync"]


def test_the_migration_tells_of_what_it_changed(declare, apps, orders):
    declare(Order)
    ARCHIVE["archive_sent_orders"](apps, EDITOR)

    assert told() == [
        ("updated", {"number": "A", "status": "archived"}),
        ("updated", {"number": "C", "status": "archived"}),
    ]


def test_the_migration_does_nothing_on_a_database_without_orders(apps):
    ARCHIVE["archive_sent_orders"](apps, EDITOR)

    assert not Delivery.objects.exists()


def test_the_migration_fails_where_rows_are_and_no_dispatch(apps, orders):
    with pytest.raises(ValueError, match="No dispatch is registered"):
        ARCHIVE["archive_sent_orders"](apps, EDITOR)


def test_the_migration_it_depends_on_exists():
    loader = MigrationLoader(None)

    assert ARCHIVE["Migration"].dependencies[1] in loader.disk_migrations
    (operation,) = ARCHIVE["Migration"].operations
    assert operation.elidable


def test_what_is_deleted_is_told_before(declare, apps, orders, deliveries, mock_endpoint):
    declare(Order, on=[Event.DELETED], path="{number}", method="DELETE")
    crm = mock_endpoint("crm")
    crm.reply(204)
    DELETE["delete_drafts"](apps, EDITOR)
    deliveries.send()

    assert [(call.method, call.path) for call in crm.calls] == [("DELETE", "D")]
    assert not Order.objects.filter(number="D").exists()


def test_historical_models_are_not_noticed(declare, apps):
    declare(Order)
    declare(Ticket, name="shop.Tickets")
    orders, tickets = apps.get_model("shop", "Order").objects, apps.get_model("shop", "Ticket")
    made = orders.create(number="A")
    made.save()
    orders.update(status="paid")
    made.delete()
    tickets.objects.bulk_create([tickets(number="T")])
    tickets.objects.update(status="used")

    assert told() == []


def test_a_hook_that_needs_the_real_model_fails_and_is_built_after_the_migration(
    declare, apps, orders, deliveries, receiver, as_in_production, settings, monkeypatch
):
    class OrderToCRM(ModelDispatch):
        def get_payload(self, order, change):
            return {"number": order.number, "real": order.is_real()}

    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {"BACKEND": "signal_dispatch.backends.deferred.DeferredBackend"}
    }
    declare(Order, base=OrderToCRM, name="shop.OrderToCRM", fields=None)
    ARCHIVE["archive_sent_orders"](apps, EDITOR)
    failed = Delivery.objects.filter(state="failed", error_class="build")
    assert failed.count() == 2
    assert "get_payload() raised AttributeError" in failed[0].reason

    monkeypatch.setattr(Order, "is_real", lambda self: True, raising=False)
    arguments = ["--dispatch", "shop.OrderToCRM", "--error-class", "build"]
    call_command("dispatch_retry", *arguments, stdout=StringIO(), stderr=StringIO())
    deliveries.send()

    assert [request.json for request in receiver.requests] == [
        {"number": "A", "real": True},
        {"number": "C", "real": True},
    ]


def test_with_a_late_snapshot_the_payload_comes_from_the_real_model(
    declare, apps, orders, deliveries, mock_endpoint
):
    met = []

    class OrderToCRM(ModelDispatch):
        def should_send(self, order, change):
            met.append(isinstance(order, Order))
            return True

        def get_payload(self, order, change):
            met.append(isinstance(order, Order))
            return {"number": order.number}

    declare(Order, base=OrderToCRM, snapshot="send", fields=None)
    mock_endpoint("crm").reply(200)
    ARCHIVE["archive_sent_orders"](apps, EDITOR)
    deliveries.send()

    assert met == [False, False, True, True]


def test_resync_tells_the_same_with_real_objects(declare, orders):
    declare(Order)
    Order.objects.filter(status="sent").update(status="archived")
    call_command(
        "dispatch_resync",
        "shop.Order",
        "--filter",
        "status=archived",
        stdout=StringIO(),
        stderr=StringIO(),
    )

    assert [payload["number"] for _event, payload in told()] == ["A", "C"]
