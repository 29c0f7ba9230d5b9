"""Bulk operations that are told as saves are, and what that costs."""

import logging
import threading

import pytest
from django.db import IntegrityError, NotSupportedError, connection, connections, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from django.test.utils import CaptureQueriesContext

from signal_dispatch import Event, ModelDispatch, bulk, suppressed
from signal_dispatch.backends import backends
from signal_dispatch.managers import DispatchManager, DispatchQuerySet, silent_managers
from signal_dispatch.models import Delivery
from signal_dispatch.registry import registry
from tests.deliveries import delivery
from tests.once import ONCE
from tests.settings import DATABASE
from tests.shop.models import Customer, Order, SeasonTicket, Ticket, TicketProxy

pytestmark = pytest.mark.django_db


def tickets(count, **values):
    return [Ticket(number=f"T-{n}", **values) for n in range(count)]


@pytest.fixture
def stored():
    with suppressed():
        return Ticket.objects.bulk_create(tickets(5))


def told():
    rows = [(d.event, d.payload["number"], d.payload["status"]) for d in Delivery.objects.all()]
    return sorted(rows, key=lambda row: row[1])


def queries_of(work):
    with CaptureQueriesContext(connection) as queries:
        work()
    return len(queries)


class Picky(ModelDispatch):
    def should_send(self, ticket, change):
        return ticket.number != "T-1"


# bulk_create


def test_created_ones_are_told_with_the_keys_they_got(declare):
    declare(Ticket)
    made = Ticket.objects.bulk_create(tickets(3))

    assert told() == [("created", f"T-{n}", "new") for n in range(3)]
    assert {d.object_pk for d in Delivery.objects.all()} == {t.pk for t in made}
    assert {d.state for d in Delivery.objects.all()} == {"pending"}


def test_row_and_delivery_are_one_transaction(declare):
    declare(Ticket)
    duplicates = [Ticket(number="T-1"), Ticket(number="T-1")]
    with pytest.raises(IntegrityError), transaction.atomic():
        Ticket.objects.bulk_create(duplicates)
    assert not Delivery.objects.exists()

    class Broken(ModelDispatch):
        def get_payload(self, ticket, change):
            raise ValueError("odd")

    declare(Ticket, name="shop.Broken", base=Broken)
    with pytest.raises(ValueError, match="odd"), transaction.atomic():  # as under test
        Ticket.objects.bulk_create(tickets(2))
    assert not Ticket.objects.exists()
    assert not Delivery.objects.exists()


def test_in_production_an_error_of_a_hook_leaves_the_write(declare, monkeypatch):
    monkeypatch.setattr(type(backends), "under_test", False)

    class Broken(ModelDispatch):
        def get_payload(self, ticket, change):
            Ticket.objects.raw("SELECT nonsense")[0]

    declare(Ticket, base=Broken)
    with transaction.atomic():
        Ticket.objects.bulk_create(tickets(2))

    assert Ticket.objects.count() == 2
    assert [d.state for d in Delivery.objects.all()] == ["failed", "failed"]


def test_hooks_see_what_post_save_would_show(declare):
    seen = []

    class Looking(ModelDispatch):
        def should_send(self, ticket, change):
            seen.append((ticket._state.adding, ticket._state.db, change.event, change.old))
            return change.changed("status")

    declare(Ticket, base=Looking, track=["status"])
    Ticket.objects.bulk_create(tickets(1))

    assert seen == [(False, "default", "created", {})]
    assert Delivery.objects.count() == 1


def test_hooks_and_settings_are_heeded(declare, settings):
    declare(Ticket, base=Picky, on=[Event.CREATED])
    declare(Ticket, name="shop.Later", on=[Event.UPDATED])
    Ticket.objects.bulk_create(tickets(3))
    assert [number for _event, number, _status in told()] == ["T-0", "T-2"]

    with suppressed("shop.Told"):
        Ticket.objects.bulk_create([Ticket(number="T-8")])
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "https://x.example/", "ENABLED": False}}
    Ticket.objects.bulk_create([Ticket(number="T-9")])
    assert Delivery.objects.count() == 2
    assert Ticket.objects.count() == 5


def test_what_is_created_in_bulk_and_changed_in_one_transaction_is_one_delivery(declare):
    declare(Ticket, base=Picky, when_changed=["status"])
    with transaction.atomic():
        made = Ticket.objects.bulk_create(tickets(3))
        made[0].status = "sold"
        made[0].save()
        made[1].number = "T-7"  # what was not told before is told now, as created
        made[1].save()
        made[2].delete()

    assert told() == [("created", "T-0", "sold"), ("created", "T-7", "new")]


def test_deletes_alone_know_what_was_created_in_bulk(declare):
    declare(Ticket, on=[Event.DELETED])
    with transaction.atomic():
        (made,) = Ticket.objects.bulk_create(tickets(1))
        made.delete()

    assert told() == []


def test_a_database_that_tells_no_keys_is_refused_before_the_write(declare, monkeypatch):
    declare(Ticket)
    monkeypatch.setattr(type(connection.features), "can_return_rows_from_bulk_insert", False)
    with pytest.raises(NotSupportedError, match=r"shop\.Ticket.*does not say which keys"):
        Ticket.objects.bulk_create(tickets(1))

    assert not Ticket.objects.exists()
    Ticket.objects.bulk_create([Ticket(pk=77, number="T-0")])
    assert Delivery.objects.get().object_pk == 77
    with suppressed():
        Ticket.objects.bulk_create([Ticket(number="T-1")])


def test_nothing_to_create_is_fine(declare):
    declare(Ticket)
    assert Ticket.objects.bulk_create([]) == []


# bulk_create with conflicts


def upsert(*made):
    target = {} if connection.vendor == "mysql" else {"unique_fields": ["number"]}
    return Ticket.objects.bulk_create(
        made, update_conflicts=True, update_fields=["status"], **target
    )


def test_conflicts_that_update_are_told_as_what_they_were(declare, stored):
    declare(Ticket)
    upsert(Ticket(number="T-0", status="sold"), Ticket(number="T-9", status="sold"))

    assert told() == [("updated", "T-0", "sold"), ("created", "T-9", "sold")]


def test_conflicts_that_update_heed_when_changed(declare, stored):
    declare(Ticket, when_changed=["status"])
    upsert(Ticket(number="T-0", status="new"), Ticket(number="T-1", status="sold"))

    assert told() == [("updated", "T-1", "sold")]


def test_conflicts_that_are_ignored_are_told_as_nothing(declare, stored):
    declare(Ticket)
    made = [
        Ticket(number="T-0", status="sold"),  # in the way: its number
        Ticket(number="T-8", row="A", place=1),
        Ticket(number="T-9", row="A", place=1),  # in the way: the seat
        Ticket(number="T-7", pk=stored[1].pk),  # in the way: the key
    ]
    Ticket.objects.bulk_create(made, ignore_conflicts=True)

    assert told() == [("created", "T-8", "new")]


def test_what_can_not_be_found_again_is_a_warning(declare, caplog):
    declare(Customer, fields=["name"])

    class Rows(DispatchQuerySet):
        pass

    rows = Rows(Customer)
    with caplog.at_level(logging.WARNING):
        rows.bulk_create([Customer(name="a"), Customer(name="b")], ignore_conflicts=True)

    assert Customer.objects.count() == 2
    assert not Delivery.objects.exists()
    (record,) = caplog.records
    assert "2 of its objects have nothing unique to find them by" in record.getMessage()
    assert record.action == "bulk_untold"


# update


def test_an_update_is_told_with_what_was_written(declare, stored):
    declare(Ticket)
    assert Ticket.objects.filter(number__gt="T-2").update(status="sold") == 2

    assert told() == [("updated", "T-3", "sold"), ("updated", "T-4", "sold")]


def test_old_values_are_true_and_when_changed_is_heeded(declare, stored):
    changes = []

    class Looking(ModelDispatch):
        def should_send(self, ticket, change):
            changes.append((change.old["status"], change.new["status"], change.changed("status")))
            return True

    declare(Ticket, base=Looking, when_changed=["status"])
    Ticket.objects.filter(number="T-0").update(status="sold")
    Ticket.objects.update(status="sold")
    Ticket.objects.update(place=7)

    assert changes == [("new", "sold", True)] * 5
    assert len(told()) == 5


def test_expressions_and_joins_are_fine(declare, stored):
    declare(Ticket)
    customer = Customer.objects.create(name="c", email="ada@example.com")
    with suppressed():
        Ticket.objects.filter(number="T-2").update(customer=customer)
    rows = Ticket.objects.filter(customer__name="c").order_by("-number")
    assert rows.update(status=Concat(F("number"), Value("!")), customer=None) == 1

    assert told() == [("updated", "T-2", "T-2!")]


def test_rows_that_change_until_the_lock_is_had_are_judged_anew(declare, stored, monkeypatch):
    declare(Ticket)
    locked = bulk._locked

    def overtaken(*arguments):
        with suppressed():
            Ticket._base_manager.filter(number="T-0").update(status="sold")
        return locked(*arguments)

    monkeypatch.setattr(bulk, "_locked", overtaken)
    assert Ticket.objects.filter(status="new").update(status="used") == 4

    assert [number for _event, number, _status in told()] == ["T-1", "T-2", "T-3", "T-4"]


@pytest.mark.skipif(DATABASE != "mariadb", reason="No other has such snapshots.")
@pytest.mark.django_db(transaction=True)
def test_nor_does_an_old_snapshot_hide_it(declare, stored, monkeypatch):
    def overtake():
        try:
            Ticket._base_manager.filter(number="T-0").update(status="sold")
            Ticket._base_manager.filter(number="T-1").update(row="B")
        finally:
            connections.close_all()

    def overtaken(*arguments):
        thread = threading.Thread(target=overtake)
        thread.start()
        thread.join()
        return locked(*arguments)

    declare(Ticket, fields=["number", "row", "status"])
    Ticket._base_manager.filter(number="T-1").update(status="used")
    locked = bulk._locked
    monkeypatch.setattr(bulk, "_locked", overtaken)
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "isolation_level", "repeatable read")
    connection.close()
    try:
        assert Ticket.objects.exclude(status="sold").update(status="used") == 4
    finally:
        connection.close()

    assert sorted((d.payload["number"], d.payload["row"]) for d in Delivery.objects.all()) == [
        ("T-1", "B"),
        ("T-2", None),
        ("T-3", None),
        ("T-4", None),
    ]


def test_the_delivery_waits_where_the_lane_is_busy(declare, stored):
    declare(Ticket)
    stored[0].status = "sold"
    stored[0].save()
    Ticket.objects.update(status="used")

    states = Delivery.objects.order_by("id").values_list("state", flat=True)
    assert list(states) == ["pending", "waiting", "pending", "pending", "pending", "pending"]


def test_in_a_transaction_with_other_changes_it_is_merged(declare, stored):
    declare(Ticket, when_changed=["status"])
    with transaction.atomic():
        stored[0].status = "sold"
        stored[0].save()
        Ticket.objects.update(status="used")
        Ticket.objects.update(status="void")

    assert told() == [("updated", f"T-{n}", "void") for n in range(5)]


def test_latest_wins_holds_in_bulk(declare, stored):
    declare(Ticket, latest_wins=True, delay=60)
    Ticket.objects.update(status="sold")
    Ticket.objects.update(status="used")

    unfinished = Delivery.objects.unfinished()
    assert {d.payload["status"] for d in unfinished} == {"used"}
    assert unfinished.count() == 5


def test_an_update_of_the_key_is_a_warning(declare, stored, caplog):
    declare(Ticket)
    Ticket.objects.filter(number="T-0").update(id=9000)

    assert Ticket.objects.filter(pk=9000).exists()
    assert not Delivery.objects.exists()
    assert "changes the key of shop.Ticket" in caplog.text


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        (lambda: Ticket.objects.all()[:2], {"status": "sold"}),
        (lambda: Ticket.objects.filter(pk=1).union(Ticket.objects.all()), {"status": "sold"}),
        (Ticket.objects.all, {"stats": "sold"}),
        (lambda: Ticket.objects.filter(number="none there is"), {"stats": "sold"}),
        (lambda: SeasonTicket.objects.all()[:2], {"status": "sold"}),
    ],
)
def test_djangos_own_refusals_stay(declare, stored, rows, values):
    declare(Ticket)
    with suppressed(), pytest.raises(Exception, match=r".") as theirs:
        rows().update(**values)
    with CaptureQueriesContext(connection) as queries, pytest.raises(theirs.type) as ours:
        rows().update(**values)

    assert str(ours.value) == str(theirs.value)
    assert len(queries) == 0, "it is refused before a row is locked"
    assert told() == []


def test_what_is_suppressed_costs_nothing(declare, stored):
    declare(Ticket)
    with suppressed():
        assert queries_of(lambda: Ticket.objects.update(status="sold")) == 1
    assert not Delivery.objects.exists()


def test_an_answer_written_back_does_not_call_again(declare, stored, deliveries, mock_endpoint):
    class Writing(ModelDispatch):
        def handle_response(self, delivery, response):
            Ticket.objects.filter(pk=delivery.object_pk).update(status="known")

    declare(Ticket, base=Writing)
    mock_endpoint("crm").reply(200)
    Ticket.objects.update(status="sold")
    deliveries.send()

    assert [d.state for d in Delivery.objects.all()] == ["delivered"] * 5
    assert {t.status for t in Ticket.objects.all()} == {"known"}


# bulk_update


def test_updated_objects_are_told(declare, stored):
    declare(Ticket, when_changed=["status"])
    for each in stored:
        each.status = "sold" if each.number != "T-3" else "new"
    assert Ticket.objects.bulk_update(stored, ["status", "place"]) == 5

    assert [number for _event, number, _status in told()] == ["T-0", "T-1", "T-2", "T-4"]


def test_fields_may_come_in_any_shape(declare, stored):
    declare(Ticket)
    stored[0].status = "sold"
    Ticket.objects.bulk_update(iter(stored[:1]), iter(["status"]))

    assert told() == [("updated", "T-0", "sold")]


# Which model it is


def test_proxies_hear_of_what_was_used_as_them(declare):
    declare(TicketProxy, name="shop.Proxy")
    Ticket.objects.bulk_create(tickets(1))
    assert told() == []
    TicketProxy.objects.bulk_create([TicketProxy(number="P-1")])
    TicketProxy.objects.update(status="sold")

    assert {number for event, number, _status in told() if event == "created"} == {"P-1"}
    assert Delivery.objects.filter(event="updated").count() == 2


def test_a_parent_hears_of_its_own_fields_alone(declare):
    declare(Ticket)
    declare(SeasonTicket, name="shop.Season", fields=["number", "status", "year"])
    with suppressed():
        SeasonTicket.objects.create(number="S-1")
    SeasonTicket.objects.update(year=2027)
    assert [d.dispatch for d in Delivery.objects.all()] == ["shop.Season"]

    SeasonTicket.objects.update(status="sold")
    names = [d.dispatch for d in Delivery.objects.order_by("id")]
    assert sorted(names) == ["shop.Season", "shop.Season", "shop.Told"]


@pytest.mark.django_db(databases=["default", "other"])
def test_the_alias_that_is_written_to_counts(declare):
    declare(Ticket)
    Ticket.objects.using("other").bulk_create(tickets(2))
    Ticket.objects.using("other").update(status="sold")

    assert Delivery.objects.using("other").count() == 4
    assert not Delivery.objects.exists()


def test_a_queryset_of_ones_own_may_build_on_it():
    class Sold(DispatchQuerySet):
        def sold(self):
            return self.filter(status="sold")

    manager = DispatchManager.from_queryset(Sold)()
    manager.model = Ticket
    assert isinstance(manager.sold(), DispatchQuerySet)


# What it costs


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("count", [50, 400])
def test_statements_grow_with_batches_not_with_rows(declare, count):
    declare(Ticket, fields=["number", "status", "customer__email"], when_changed=["status"])
    customers = Customer.objects.bulk_create([Customer(name=f"c{n}") for n in range(count)])
    rows = [Ticket(number=f"T-{n}", customer_id=c.pk) for n, c in enumerate(customers)]
    # SQLite takes so many values in a statement, and Django writes so many rows at once.
    per_row = len(Delivery._meta.concrete_fields) - 1
    most = connection.features.max_query_params
    inserts = -(-count * per_row // most) if most else 1
    own = -(-count * 6 // most) if most else 1

    created = queries_of(lambda: Ticket.objects.bulk_create(rows))
    updated = queries_of(lambda: Ticket.objects.update(status="sold"))
    for each in rows:
        each.status = "used"
    bulk_updated = queries_of(lambda: Ticket.objects.bulk_update(rows, ["status"]))

    assert Delivery.objects.count() == 3 * count
    assert created <= own + inserts + 8
    assert updated <= inserts + 14
    assert bulk_updated <= (count // 150 + 1) * 8 + inserts + 14


@pytest.mark.django_db(transaction=True)
def test_batches_follow_one_another(declare, monkeypatch):
    declare(Ticket)
    monkeypatch.setattr(bulk, "BATCH", 2)
    Ticket.objects.bulk_create(tickets(5))
    Ticket.objects.update(status="sold")
    rows = list(Ticket.objects.all())
    for each in rows:
        each.status = "used"
    Ticket.objects.bulk_update(rows, ["status"])

    assert Delivery.objects.count() == 15
    assert Delivery.objects.filter(state="waiting").count() == 10
    assert delivery().pk


@ONCE
@pytest.mark.parametrize(
    ("model", "on", "names"),
    [
        (Order, [Event.CREATED], ["objects"]),
        (Order, [Event.UPDATED, Event.DELETED], ["objects"]),
        (Order, [Event.DELETED, "refunded"], []),
        (Ticket, [Event.CREATED, Event.UPDATED], []),
    ],
)
def test_what_is_told_of_no_bulk_write_names_the_managers(declare, model, on, names):
    declare(model, on=on)

    (dispatch,) = registry
    assert silent_managers(dispatch) == names
