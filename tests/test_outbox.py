"""The one INSERT of a save."""

from dataclasses import FrozenInstanceError
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from signal_dispatch import crashpoints, insertion, outbox
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery, EndpointState, State
from tests.deliveries import MINE, delivery, new, recorded, seconds_until, statements

pytestmark = pytest.mark.django_db

A_MINUTE = timedelta(minutes=1)


# Recording.


def test_a_new_delivery_is_due_at_once():
    outbox.record(made := new(headers={"X": "ü"}, body=b"\x00\xff"), "default", lease=None)
    row = Delivery.objects.get()

    assert (row.state, row.held_by, row.epoch) == ("pending", "", 0)
    assert -5 < seconds_until(row.available_at) <= 1
    assert (row.available_at, row.not_before, row.finished_at) == (row.created_at, None, None)
    assert (row.uid, row.headers, bytes(row.body)) == (made.uid, {"X": "ü"}, b"\x00\xff")


@pytest.mark.parametrize("state", ["pending", "failed"])
def test_every_column_is_read_back_as_it_was_given(state):
    texts = ["environment", "dispatch", "endpoint", "event", "model", "object_pk", "lane", "method"]
    texts += ["path", "trace"]
    reasons = ["error_class", "reason"] if state == "failed" else []
    made, row = recorded(
        **{name: f"é'%s\\{number}" for number, name in enumerate([*texts, *reasons])},
        hops=3,
        state=state,
        headers={"a": "ü"},
        body=b"\x00\xff",
    )

    columns = [field.attname for field in insertion.GIVEN]
    assert set(columns) == {*texts, "hops", "headers", "body", "uid"}
    assert stored(row, [*columns, *reasons]) == stored(made, [*columns, *reasons])


@pytest.mark.parametrize("lease", [None, MINE])
def test_all_others_are_those_of_a_new_delivery(lease):
    given = {field.attname for field in insertion.GIVEN}
    decided = {"id", "available_at", "held_by", "epoch", "created_at"}
    others = [f.attname for f in Delivery._meta.concrete_fields if f.attname not in given | decided]
    _made, row = recorded(lease=lease)

    assert stored(row, others) == stored(Delivery(), others)


def stored(delivery, names):
    return [getattr(delivery, name) for name in names]


def test_with_a_lease_it_is_nobody_elses_until_that_ends():
    made, row = recorded(lease=MINE)

    assert (row.state, row.held_by, row.epoch) == ("pending", "me", insertion.FIRST_EPOCH)
    assert (row.available_at - row.created_at, row.not_before) == (A_MINUTE, None)
    assert (made.state, made.held_by, made.epoch) == ("pending", "me", insertion.FIRST_EPOCH)


def test_a_lease_can_not_be_altered():
    lease = outbox.Lease(holder="me", seconds=60)

    with pytest.raises(FrozenInstanceError):
        lease.seconds = 600


@pytest.mark.parametrize("delay", [0.5, 30])
def test_with_a_delay_nobody_has_it(delay):
    made, row = recorded(lease=MINE, delay=delay)

    assert (row.held_by, row.epoch, made.held_by) == ("", 0, "")
    assert row.available_at - row.created_at == timedelta(seconds=delay)
    assert row.not_before == row.available_at


def test_a_state_given_as_its_text_counts_like_any_other():
    assert recorded(lease=MINE, lane="a", state="pending")[1].held_by == "me"
    assert recorded(lease=MINE, lane="a", state="pending")[1].state == "waiting"


@pytest.mark.parametrize("head", ["pending", "waiting"])
@pytest.mark.parametrize("lease", [None, MINE])
def test_in_a_busy_lane_it_waits_whoever_records_it(head, lease):
    delivery(lane="a", state=head)
    made, row = recorded(lease=lease, lane="a")

    assert (row.state, row.held_by, row.epoch) == ("waiting", "", 0)
    assert row.available_at is None
    assert (made.state, made.held_by, made.epoch) == ("waiting", "", 0)


@pytest.mark.parametrize(
    "other", [{"lane": "a", "state": "delivered"}, {"lane": "a", "state": "failed"}, {"lane": "b"}]
)
def test_an_idle_lane_holds_nothing_up(other):
    delivery(**other)

    assert recorded(lease=MINE, lane="a")[1].held_by == "me"


def test_rows_without_a_lane_do_not_wait_for_each_other():
    delivery(lane="")

    assert recorded(lane="")[1].state == "pending"


def test_what_failed_when_it_was_built_is_finished():
    delivery(lane="a")
    _made, row = recorded(
        lease=MINE, lane="a", state=State.FAILED, error_class="build", reason="No."
    )

    assert (row.state, row.error_class, row.reason, row.held_by) == ("failed", "build", "No.", "")
    assert row.available_at is None
    assert row.finished_at == row.created_at


@pytest.mark.parametrize("look", [True, False])
@pytest.mark.parametrize("lease", [MINE, None])
def test_recording_is_one_statement(look, lease):
    with CaptureQueriesContext(connection) as queries:
        outbox.record(new(lane="a"), "default", lease=lease, look=look)

    (query,) = queries
    assert ("AS busy" in query["sql"]) is look, "the look costs where nothing can be"
    assert ("AS barred" in query["sql"]) is (lease is not None)


@pytest.mark.parametrize("values", [{"paused_at": DatabaseNow()}, {"open_until": DatabaseNow(-9)}])
@pytest.mark.parametrize("look", [True, False])
def test_a_row_whose_endpoint_must_not_be_called_is_due_and_nobodys(look, values):
    EndpointState.objects.create(environment="", endpoint="crm", **values)
    EndpointState.objects.create(environment="staging", endpoint="hubspot", **values)
    EndpointState.objects.create(environment="", endpoint="hubspot")
    barred, row = recorded(lease=MINE, lane="a", look=look)
    free, other = recorded(lease=MINE, lane="b", endpoint="hubspot", look=look)

    assert (row.state, row.held_by, row.epoch) == ("pending", "", 0)
    assert (barred.held_by, barred.epoch) == ("", 0)
    assert abs(seconds_until(row.available_at)) < 5
    assert (other.held_by, other.epoch) == (free.held_by, free.epoch) == ("me", 1)


@pytest.mark.usefixtures("repeatable_read")
def test_where_the_look_would_lock_it_is_a_statement_of_its_own():
    for where in ({"endpoint": "crm"}, {"endpoint": "hubspot", "environment": "staging"}):
        EndpointState.objects.create(paused_at=DatabaseNow(), **where)
    with CaptureQueriesContext(connection) as queries:
        _made, row = recorded(lease=MINE)
    _free, other = recorded(lease=MINE, endpoint="hubspot")

    assert not [q for q in statements(queries, "INSERT") if "EXISTS" in q]
    assert (row.held_by, row.epoch, other.held_by, other.epoch) == ("", 0, "me", 1)


@pytest.fixture
def returns_nothing(monkeypatch):
    if connection.vendor == "postgresql":
        pytest.skip("Its driver tells no number in any other way than by returning the column.")
    insertion.insert_statement.cache_clear()
    monkeypatch.setattr(connection.features, "can_return_columns_from_insert", False)
    yield
    insertion.insert_statement.cache_clear()


@pytest.mark.usefixtures("returns_nothing")
@pytest.mark.parametrize("lease", [MINE, None])
def test_a_database_that_returns_nothing_is_asked_for_the_state(lease):
    delivery(lane="a")
    with CaptureQueriesContext(connection) as queries:
        waiting, row = recorded(lease=lease, lane="a")
        free, free_row = recorded(lease=lease, lane="b", look=False)

    assert not [q for q in statements(queries, "INSERT") if "RETURNING" in q]
    assert waiting.state == row.state == "waiting"
    assert (free.pk, free.state, free.epoch) == (free_row.pk, "pending", free_row.epoch)
    assert free.held_by == free_row.held_by == ("me" if lease else "")


@pytest.mark.usefixtures("returns_nothing")
def test_a_database_that_returns_nothing_is_not_asked_what_the_insert_did_not_decide():
    with CaptureQueriesContext(connection) as queries:
        outbox.record(made := new(), "default", lease=None)

    assert len(queries) == 1
    assert (made.state, made.epoch) == ("pending", 0)


@pytest.mark.usefixtures("returns_nothing", "repeatable_read")
def test_a_database_that_returns_nothing_and_reads_old_snapshots_knows_of_the_lease():
    made, row = recorded(lease=MINE)

    assert (made.held_by, made.epoch) == (row.held_by, row.epoch) == ("me", insertion.FIRST_EPOCH)


def test_a_delivery_knows_when_it_was_recorded():
    made, row = recorded()

    assert abs((made.created_at - row.created_at).total_seconds()) < 2


def test_the_place_where_fault_tests_kill_is_behind_the_write(monkeypatch):
    rows = []
    monkeypatch.setattr(
        crashpoints, "reached", lambda point: rows.append((point, Delivery.objects.count()))
    )
    outbox.record(new(), "default", lease=None)
    outbox.record_many([new()], "default")

    assert rows == [("before_commit", 1), ("before_commit", 2)]


@pytest.mark.usefixtures("repeatable_read")
@pytest.mark.django_db(databases=["default", "other"])
def test_another_database_keeps_its_own_deliveries():
    delivery(using="other", lane="busy")
    there = EndpointState.objects.using("other")
    there.create(environment="", endpoint="hubspot", paused_at=DatabaseNow())
    single, many = new(endpoint="hubspot"), [new(lane="busy"), new(lane="free")]
    outbox.record(single, "other", lease=MINE)
    outbox.record_many(many, "other", alone=True)
    single.path = "orders/7"

    assert (single._state.db, single._state.adding, single.held_by) == ("other", False, "")
    assert [d.state for d in many] == ["waiting", "pending"]
    assert outbox.refresh(single, "other")
    assert Delivery.objects.using("other").get(pk=single.pk).path == "orders/7"
    assert outbox.withdraw(single, "other")
    assert Delivery.objects.using("other").count() == 3
    assert not Delivery.objects.using("default").exists()


def test_many_are_recorded_by_two_statements_each_in_its_lane():
    delivery(lane="busy")
    many = [
        new(lane="free"),
        new(lane="busy"),
        new(lane=""),
        new(lane="busy", state=State.FAILED, reason="No."),
    ]
    with CaptureQueriesContext(connection) as queries:
        outbox.record_many(many, "default")

    assert len(statements(queries, "SELECT", "INSERT")) == 2
    rows = Delivery.objects.filter(pk__in=[d.pk for d in many]).order_by("id")
    assert [r.state for r in rows] == ["pending", "waiting", "pending", "failed"]
    assert [r.available_at is None for r in rows] == [False, True, False, True]
    assert [r.finished_at is None for r in rows] == [True, True, True, False]
    assert {r.epoch for r in rows} == {0}
    assert rows[0].available_at == rows[0].created_at
    assert {r.not_before for r in rows} == {None}


def test_many_are_due_after_their_delay():
    outbox.record_many([new()], "default", delay=0.5)

    row = Delivery.objects.get()
    assert row.available_at - row.created_at == timedelta(seconds=0.5)
    assert row.not_before == row.available_at


def test_ids_that_the_database_does_not_return_are_read_back(monkeypatch):
    monkeypatch.setattr(type(connection.features), "can_return_rows_from_bulk_insert", False)
    delivery()
    many = [new(object_pk=number) for number in range(3)]
    outbox.record_many(many, "default")

    for made in many:
        assert Delivery.objects.get(pk=made.pk).uid == made.uid


def test_where_old_snapshots_are_read_the_look_is_a_statement_of_its_own(repeatable_read):
    delivery(lane="busy")
    with CaptureQueriesContext(connection) as queries:
        outbox.record(waits := new(lane="busy"), "default", lease=MINE, alone=True)
        outbox.record(free := new(lane="free"), "default", lease=MINE, alone=True)

    assert not [q for q in statements(queries, "INSERT") if "EXISTS" in q]
    assert [d.state for d in (waits, free)] == ["waiting", "pending"]
    assert (free.held_by, waits.held_by, waits.epoch) == ("me", "", 0)
    row = Delivery.objects.get(pk=waits.pk)
    assert (row.state, row.available_at, row.finished_at) == ("waiting", None, None)


def test_where_old_snapshots_are_read_the_sites_own_transaction_trusts_no_look(repeatable_read):
    single, many, loose = new(lane="a"), [new(lane="b"), new(lane="")], new(lane="")
    outbox.record(single, "default", lease=MINE)
    outbox.record(loose, "default", lease=MINE)
    outbox.record_many(many, "default")

    assert [d.state for d in (single, *many)] == ["waiting", "waiting", "pending"]
    assert (loose.state, loose.held_by) == ("pending", "me")


def test_where_old_snapshots_are_read_the_packages_own_transaction_looks(repeatable_read):
    delivery(lane="busy")
    outbox.record_many(many := [new(lane="busy"), new(lane="free")], "default", alone=True)

    assert [d.state for d in many] == ["waiting", "pending"]


@pytest.fixture
def repeatable_read(monkeypatch):
    monkeypatch.setattr(outbox, "reads_old_snapshots", lambda connection: True)


def test_what_was_recorded_in_bulk_holds_values_not_sql():
    (made, failed) = many = [new(), new(state=State.FAILED)]
    outbox.record_many(many, "default")

    assert abs(seconds_until(made.created_at)) < 5
    assert (made.available_at, failed.finished_at) == (None, None)
    assert failed.created_at


def test_a_delivery_is_rewritten_in_its_transaction():
    made, _row = recorded(lease=MINE, body=b"1", event="created")
    made.body, made.path, made.event = b"2", "orders/7", "updated"

    assert outbox.refresh(made, "default")
    row = Delivery.objects.get(pk=made.pk)
    assert (bytes(row.body), row.path, row.event) == (b"2", "orders/7", "updated")
    assert (row.held_by, row.finished_at) == ("me", None)
    assert row.available_at - row.created_at == A_MINUTE


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_a_delivery_that_is_rewritten_as_finished_has_nobody_left_to_send_it(state):
    made, _row = recorded(lease=MINE)
    made.state, made.reason = state, "No."

    assert outbox.refresh(made, "default")
    row = Delivery.objects.get(pk=made.pk)
    assert (row.state, row.reason, row.held_by, row.available_at) == (state, "No.", "", None)
    assert abs(seconds_until(row.finished_at)) < 5


@pytest.mark.parametrize("change", [outbox.refresh, outbox.withdraw])
def test_a_delivery_that_a_savepoint_took_back_is_not_mistaken_for_its_number(change):
    gone, other = new(), delivery()
    gone.pk = other.pk

    assert not change(gone, "default")
    assert Delivery.objects.filter(pk=other.pk).exists()


def test_a_finished_delivery_is_not_rewritten():
    made, _row = recorded(state=State.FAILED)

    assert not outbox.refresh(made, "default")


def test_a_delivery_is_withdrawn():
    made, _row = recorded()

    assert outbox.withdraw(made, "default")
    assert not Delivery.objects.exists()
