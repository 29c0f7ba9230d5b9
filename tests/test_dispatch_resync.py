"""All objects of a model are told, or those that nobody was told of."""

import signal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from signal_dispatch import Event, ModelDispatch, suppressed
from signal_dispatch.management import batches, outboxes, progress
from signal_dispatch.management.commands import dispatch_resync
from signal_dispatch.managers import DispatchManager, DispatchQuerySet
from signal_dispatch.models import Delivery, RemoteObject
from tests.deliveries import delivery
from tests.shop.models import Customer, Order, PriorityOrder, Seat, Shipment, Tag, Ticket

pytestmark = pytest.mark.django_db(databases=["default", "other"])

SENT = "They are sent by the site's processes, or by dispatch_worker.\n"


def run(*arguments):
    out = StringIO()
    call_command("dispatch_resync", *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


@pytest.fixture
def orders():
    with suppressed():
        return Order.objects.bulk_create(
            [Order(number=f"A-{n}", status="paid" if n % 2 else "draft") for n in range(5)]
        )


def test_without_an_outbox_nobody_is_told_and_it_says_what_to_run(declare, orders, monkeypatch):
    declare(Order)
    monkeypatch.setattr(outboxes, "has_outbox", lambda alias: False)
    with pytest.raises(CommandError, match=r"in default: run 'manage\.py migrate --data"):
        run("shop.Order")


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        ("threads.ThreadsBackend", SENT),
        ("deferred.DeferredBackend", "They are sent by dispatch_worker.\n"),
        ("celery.CeleryBackend", "They are sent by Celery's workers.\n"),
        ("immediate.ImmediateBackend", ""),
        ("nowhere.Backend", ""),
    ],
)
def test_it_says_who_sends_what_is_recorded(declare, orders, settings, backend, said):
    declare(Order)
    named = {"BACKEND": f"signal_dispatch.backends.{backend}"}
    settings.SIGNAL_DISPATCH_BACKENDS = {"default": named}

    assert run("shop.Order").partition("\n")[2] == said
    assert "sent by" not in run("shop.Order", "--dry-run")


def told():
    return [(d.event, d.payload["number"]) for d in Delivery.objects.order_by("id")]


def test_every_object_is_told_as_updated(declare, orders):
    declare(Order, when_changed=["status"])

    assert run("shop.Order") == f"5 objects of shop.Order: 5 deliveries are recorded.\n{SENT}"
    assert told() == [("updated", f"A-{n}") for n in range(5)]


def test_hooks_are_asked(declare, orders):
    class Picky(ModelDispatch):
        def should_send(self, order, change):
            return order.status == "paid"

    declare(Order, base=Picky)
    assert run("shop.Order") == "5 objects of shop.Order: 2 deliveries are recorded.\n" + SENT


def test_filters_say_which(declare, orders):
    declare(Order)
    run("shop.Order", "--filter", "status=paid", "--filter", "number__in=A-0,A-1")
    assert told() == [("updated", "A-1")]
    run("shop.Order", "--filter", "customer__isnull=true", "--filter", "number=A-4")
    assert told()[1:] == [("updated", "A-4")]
    assert "0 objects" in run("shop.Order", "--filter", "customer__isnull=false")


def test_an_object_found_several_times_is_told_once(declare, orders):
    declare(Order)
    for name in ("a", "b"):
        orders[0].tags.add(Tag.objects.create(name=name))

    assert run("shop.Order", "--filter", "tags__name__in=a,b").startswith("1 objects")


def test_dispatch_and_event_may_be_named(declare, orders):
    declare(Order, on=[Event.CREATED])
    declare(Order, name="shop.Other", on=["refunded", Event.UPDATED])
    run("shop.Order", "--event", "refunded")
    assert {d.dispatch for d in Delivery.objects.all()} == {"shop.Other"}

    run("shop.Order", "--dispatch", "shop.Told", "--event", "updated")
    assert Delivery.objects.filter(dispatch="shop.Told", event="updated").count() == 5


def test_missing_are_those_that_nobody_was_told_of(declare, orders):
    declare(Order)
    declare(Order, name="shop.Other")
    keys = [order.pk for order in orders]
    delivery(object_pk=keys[0])
    RemoteObject.objects.create(
        dispatch="shop.Told", endpoint="crm", model="shop.order", object_pk=keys[1], remote_id="x"
    )
    delivery(object_pk=keys[2], environment="production")
    RemoteObject.objects.create(
        environment="production",
        dispatch="shop.Told",
        endpoint="crm",
        model="shop.order",
        object_pk=keys[2],
        remote_id="x",
    )
    assert run("shop.Order", "--missing", "--dry-run") == (
        "5 objects of shop.Order: 8 deliveries would be recorded.\n"
    )

    assert run("shop.Order", "--missing").endswith(f": 8 deliveries are recorded.\n{SENT}")
    created = Delivery.objects.filter(event="created")
    assert set(created.filter(dispatch="shop.Told").values_list("object_pk", flat=True)) == set(
        keys[2:]
    )
    assert created.filter(dispatch="shop.Other").count() == 5
    assert run("shop.Order", "--missing").endswith(": 0 deliveries are recorded.\n")


def test_keys_of_any_kind_are_told_apart(declare, orders):
    declare(Shipment, name="shop.Sent", fields=["order"])
    declare(Seat, name="shop.Seats", fields=["row"])
    with suppressed():
        for number in range(3):
            Shipment.objects.create(order=orders[0])
            Seat.objects.create(row="A", number=number)
    for model in ("shop.Shipment", "shop.Seat"):
        assert run(model, "--missing").endswith(f": 3 deliveries are recorded.\n{SENT}")
        assert run(model, "--missing").endswith(": 0 deliveries are recorded.\n")
    last = Shipment.objects.order_by("pk")[1]
    assert run("shop.Shipment", "--after", str(last.pk)).startswith("1 objects")
    assert run("shop.Seat", "--after", '["A", 1]').startswith("1 objects")


def test_a_child_is_told_as_its_parent_too(declare):
    declare(Order)
    declare(PriorityOrder, name="shop.Child", fields=["level"])
    with suppressed():
        PriorityOrder.objects.create(number="P-1")

    assert run("shop.PriorityOrder").endswith(f": 2 deliveries are recorded.\n{SENT}")


def test_a_dry_run_does_nothing(declare, orders):
    declare(Order)
    assert run("shop.Order", "--dry-run") == (
        "5 objects of shop.Order: 5 deliveries would be recorded.\n"
    )
    assert not Delivery.objects.exists()


def test_a_dry_run_asks_the_hooks_as_the_real_run_does(declare, orders, settings):
    entry = settings.SIGNAL_DISPATCH_ENDPOINTS["crm"]
    off = entry | {"ENABLED": False}
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": entry, "erp": entry, "off": off}

    class Picky(ModelDispatch):
        def should_send(self, order, change):
            Order.objects.filter(pk=order.pk).update(total=7)
            order.tags.create(name="seen")
            Customer.objects.create(name="seen")
            return order.status == "paid"

        def get_endpoint(self, order, change):
            return ["crm", "erp", "off"] if order.number == "A-1" else "crm"

    declare(Order, base=Picky)
    declare(Customer, name="shop.Customers", fields=["name"])
    said = run("shop.Order", "--dry-run")

    assert said == "5 objects of shop.Order: 3 deliveries would be recorded.\n"
    assert not Delivery.objects.exists()
    assert not Tag.objects.exists()
    assert not Customer.objects.exists()
    assert not Order.objects.filter(total=7).exists(), "what hooks write is taken back"
    run("shop.Order")
    assert Delivery.objects.filter(dispatch="shop.Told").count() == 3


@pytest.mark.usefixtures("as_in_production")
def test_what_can_not_be_built_counts_in_a_dry_run_too(declare, orders):
    class Broken(ModelDispatch):
        def get_payload(self, order, change):
            raise ValueError("no")

    declare(Order, base=Broken)
    assert run("shop.Order", "--dry-run").endswith(": 5 deliveries would be recorded.\n")
    assert not Delivery.objects.exists()


def test_no_objects_are_no_error(declare):
    declare(Order)
    assert run("shop.Order") == "0 objects of shop.Order: 0 deliveries are recorded.\n"


def test_what_the_default_manager_hides_is_told_where_all_is_asked_for(declare, monkeypatch):
    declare(Ticket)
    with suppressed():
        Ticket.objects.create(number="T-1")
    monkeypatch.setattr(
        DispatchManager, "get_queryset", lambda self: DispatchQuerySet(Ticket).none()
    )

    assert run("shop.Ticket").startswith("0 objects")
    assert run("shop.Ticket", "--all").startswith("1 objects")


def test_another_database_may_be_named(declare):
    declare(Order)
    with suppressed():
        Order.objects.using("other").create(number="B-1")

    assert run("shop.Order", "--database", "other").startswith("1 objects")
    assert Delivery.objects.using("other").count() == 1


# Bad input


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["shop.Ordr"], r"'shop\.Ordr' names no model\. Models with a dispatch: shop\.Order\."),
        (["Order"], "'Order' names no model"),
        (["shop.Customer"], r"No dispatch is registered for shop\.Customer.*shop\.Order"),
        (["shop.Order", "--dispatch", "x"], r"--dispatch 'x' is not known\. Known: shop\.Told\."),
        (["shop.Order", "--event", "sold"], "tells of 'sold', only of: created, deleted, updated"),
        (
            ["shop.Order", "--dispatch", "shop.Told", "--event", "sold"],
            r"--event 'sold' is not known\. Known: created, deleted, updated\.",
        ),
        (["shop.Order", "--filter", "status"], "--filter takes NAME=VALUE"),
        (["shop.Order", "--filter", "stats=paid"], r"--filter: Cannot resolve.*status"),
        (["shop.Order", "--filter", "id=x"], "--filter: .*expected a number"),
        (["shop.Order", "--filter", "status__regex=("], "--filter: "),
        (
            ["shop.Order", "--after", "x"],
            r"'x' is no key of shop\.Order: write the one that was told",
        ),
        (["shop.Order", "--database", "x"], r"--database 'x' is not known\. Known: default, other"),
        (["shop.Order", "--mising"], "Known are: .*--missing"),
    ],
)
def test_what_makes_no_sense_is_an_error_with_the_known_names(declare, arguments, said):
    declare(Order)
    Order.objects.create(number="A-1")
    with pytest.raises(CommandError, match=said):
        run(*arguments)


# In batches


def test_statements_grow_with_batches_not_with_objects(declare, monkeypatch):
    declare(Order, fields=["number", "customer__email"])
    with suppressed():
        for number in range(20):
            customer = Customer.objects.create(name="c")
            Order.objects.create(number=f"B-{number}", customer=customer)
    with CaptureQueriesContext(connection) as queries:
        run("shop.Order", "--missing")

    assert Delivery.objects.count() == 20
    assert len([q for q in queries if not q["sql"].startswith("INSERT")]) <= 20


def test_a_key_that_a_person_typed_does_nothing_to_the_terminal(declare, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    declare(Seat, fields=["row"])
    with suppressed():
        Seat.objects.create(row="A\x9b", number=1)
    err = StringIO()
    call_command("dispatch_resync", "shop.Seat", stdout=StringIO(), stderr=err)

    assert '1 of 1, at ["A\\x9b",1]' in err.getvalue()


def test_told_to_stop_it_says_how_to_go_on(declare, orders, monkeypatch):
    declare(Order)
    monkeypatch.setattr(batches, "BATCH", 2)
    enqueue = dispatch_resync.enqueue

    def interrupted(*arguments):
        recorded = enqueue(*arguments)
        signal.raise_signal(signal.SIGINT)
        return recorded

    monkeypatch.setattr(dispatch_resync, "enqueue", interrupted)
    with pytest.raises(CommandError, match=f"Go on with --after {orders[1].pk}") as raised:
        run("shop.Order")
    assert raised.value.returncode == 130
    monkeypatch.setattr(dispatch_resync, "enqueue", enqueue)
    run("shop.Order", "--after", str(orders[1].pk))

    assert told() == [("updated", f"A-{n}") for n in range(5)]
