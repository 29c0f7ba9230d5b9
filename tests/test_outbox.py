"""The one INSERT of a save, and the fenced record of what became of it."""

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch import outbox
from signal_dispatch.exceptions import LeaseLost
from signal_dispatch.models import Attempt, Delivery, RemoteObject, State
from signal_dispatch.outbox import Lease, Settlement
from tests.deliveries import delivery
from tests.shop.models import Order

pytestmark = pytest.mark.django_db

MINE = Lease("me", 60)


def new(**values):
    defaults = {"dispatch": "shop.Told", "endpoint": "crm", "event": "updated"}
    return Delivery(**defaults | {"model": "shop.order", "object_pk": 1} | values)


def recorded(*, lease=None, delay=0.0, look=True, **values):
    made = new(**values)
    outbox.record(made, "default", lease=lease, delay=delay, look=look)
    return made, Delivery.objects.get(pk=made.pk)


def attempt_of(made, **values):
    defaults = {"number": made.attempts + 1, "started_at": timezone.now(), "outcome": "delivered"}
    return Attempt(delivery=made, **defaults | values)


def statements(queries, *verbs):
    return [q["sql"] for q in queries if q["sql"].startswith(verbs)]


def seconds_until(moment):
    return (moment - timezone.now()).total_seconds()


# Recording.


def test_a_new_delivery_is_due_at_once():
    made, row = recorded(headers={"X": "ü"}, body=b"\x00\xff")

    assert (row.state, row.held_by, row.epoch) == ("pending", "", 0)
    assert -5 < seconds_until(row.available_at) <= 1
    assert row.finished_at is None
    assert (row.uid, row.headers, bytes(row.body)) == (made.uid, {"X": "ü"}, b"\x00\xff")


def test_with_a_lease_it_is_nobody_elses_until_that_ends():
    made, row = recorded(lease=MINE)

    assert (row.state, row.held_by, row.epoch) == ("pending", "me", 1)
    assert 50 < seconds_until(row.available_at) <= 61
    assert (made.state, made.held_by, made.epoch) == ("pending", "me", 1)


def test_with_a_delay_nobody_has_it():
    made, row = recorded(lease=MINE, delay=30)

    assert (row.held_by, row.epoch, made.held_by) == ("", 0, "")
    assert 20 < seconds_until(row.available_at) <= 31


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
def test_recording_is_one_statement(look):
    with CaptureQueriesContext(
        connection,
    ) as queries:
        outbox.record(new(lane="a"), "default", lease=MINE, look=look)

    assert len(queries) == 1
    assert ("EXISTS" in queries[0]["sql"]) is look, "the look costs where nothing can be"


@pytest.mark.skipif(connection.vendor == "postgresql", reason="It always returns columns.")
def test_a_database_that_returns_nothing_is_asked_for_the_state(monkeypatch):
    outbox._insert_statement.cache_clear()
    monkeypatch.setattr(connection.features, "can_return_columns_from_insert", False)
    delivery(lane="a")
    try:
        waiting, row = recorded(lease=MINE, lane="a")
        free, free_row = recorded(lease=MINE, lane="b", look=False)
    finally:
        outbox._insert_statement.cache_clear()

    assert waiting.state == row.state == "waiting"
    assert (free.pk, free.state, free_row.held_by) == (free_row.pk, "pending", "me")


def test_a_delivery_knows_when_it_was_recorded():
    made, row = recorded()

    assert abs((made.created_at - row.created_at).total_seconds()) < 2


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


def test_what_was_recorded_in_bulk_holds_values_not_sql():
    (made, failed) = many = [new(), new(state=State.FAILED)]
    outbox.record_many(many, "default")

    assert abs(seconds_until(made.created_at)) < 5
    assert (made.available_at, failed.finished_at) == (None, None)
    assert failed.created_at


def test_a_delivery_is_rewritten_in_its_transaction():
    made, _row = recorded(body=b"1", event="created")
    made.body, made.path, made.event = b"2", "orders/7", "updated"

    assert outbox.refresh(made, "default")
    row = Delivery.objects.get(pk=made.pk)
    assert (bytes(row.body), row.path, row.event) == (b"2", "orders/7", "updated")


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


# Settling.


def settled_batch():
    done, again, gone = (recorded(lease=MINE)[0] for _ in range(3))
    return [
        Settlement(done, State.DELIVERED, attempt_of(done, status_code=200, duration_ms=12)),
        Settlement(
            again,
            State.PENDING,
            attempt_of(again, outcome="retry", status_code=503),
            delay=30,
            error_class="status",
            reason="503",
            handler_tried=True,
        ),
        Settlement(gone, State.CANCELLED, reason="Not needed."),
    ]


def test_a_batch_is_one_update_and_one_insert():
    batch = settled_batch()
    with CaptureQueriesContext(connection) as queries:
        assert set(map(id, outbox.settle(batch, "default"))) == set(map(id, batch))

    assert len(statements(queries, "SELECT", "UPDATE", "INSERT")) == 2


def test_each_of_a_batch_gets_its_own_record():
    batch = settled_batch()
    outbox.settle(batch, "default")
    done, again, gone = (Delivery.objects.get(pk=s.delivery.pk) for s in batch)

    assert (done.state, done.attempts, done.last_status) == ("delivered", 1, 200)
    assert done.last_duration_ms == 12
    assert (again.state, again.attempts, again.handler_tries) == ("pending", 1, 1)
    assert (again.error_class, again.reason, again.finished_at) == ("status", "503", None)
    assert 20 < seconds_until(again.available_at) < 31
    assert (gone.state, gone.attempts, gone.last_status) == ("cancelled", 0, None)
    for row in (done, gone):
        assert row.available_at is None
        assert abs(seconds_until(row.finished_at)) < 5
    assert {done.held_by, again.held_by, gone.held_by} == {""}
    assert Attempt.objects.count() == 2


def test_an_attempt_that_was_not_made_leaves_the_last_answer_in_view():
    made, _row = recorded(lease=MINE)
    outbox.settle([Settlement(made, State.PENDING, attempt_of(made, status_code=503))], "default")
    made.refresh_from_db()
    outbox.settle([Settlement(made, State.PENDING, error_class="internal")], "default")

    made.refresh_from_db()
    assert (made.last_status, made.attempts, made.error_class) == (503, 1, "internal")


def test_the_delivery_in_memory_shows_what_was_written():
    for settlement in settled_batch():
        outbox.settle([settlement], "default")
        settlement.apply()
        shown, row = settlement.delivery, Delivery.objects.get(pk=settlement.delivery.pk)
        for name in (
            *("state", "held_by", "error_class", "reason", "attempts", "handler_tries"),
            *("last_status", "last_duration_ms", "epoch"),
        ):
            assert getattr(shown, name) == getattr(row, name), name
        for name in ("available_at", "finished_at"):
            mine, theirs = getattr(shown, name), getattr(row, name)
            assert (mine is None) is (theirs is None), name
            assert mine is None or abs((mine - theirs).total_seconds()) < 5, name


def test_whoever_lost_the_lease_overwrites_nothing_but_the_attempt_is_on_record():
    batch = settled_batch()
    lost = batch[1].delivery
    Delivery.objects.filter(pk=lost.pk).update(epoch=F("epoch") + 1, held_by="you")
    before = Delivery.objects.filter(pk=lost.pk).values().get()

    assert outbox.settle(batch, "default") == [batch[0], batch[2]]
    assert Delivery.objects.filter(pk=lost.pk).values().get() == before
    assert Attempt.objects.filter(delivery=lost).count() == 1


def test_a_delivery_that_is_gone_takes_its_attempt_along():
    batch = settled_batch()
    Delivery.objects.filter(pk=batch[0].delivery.pk).delete()

    assert outbox.settle(batch, "default") == batch[1:]
    assert Attempt.objects.count() == 1


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "x" * 600])
def test_no_text_keeps_a_record_from_being_written(text):
    made, _row = recorded(lease=MINE)
    attempt = attempt_of(made, error=text)
    outbox.settle([Settlement(made, State.FAILED, attempt, reason=text)], "default")

    reason = Delivery.objects.get(pk=made.pk).reason
    assert len(reason) == min(len(text), 500)
    assert (reason[0], reason[-1]) == (text[0], text[-1])
    assert len(Attempt.objects.get().error) == len(text)


def test_a_record_that_was_rolled_back_is_written_anew():
    # SQLite gives out the numbers of a rolled-back transaction once more.
    made, _row = recorded(lease=MINE)
    settlement = Settlement(made, State.DELIVERED, attempt_of(made))
    with transaction.atomic():
        outbox.settle([settlement], "default")
        transaction.set_rollback(True)
    other, _row = recorded(lease=MINE)
    taken = attempt_of(other)
    taken.pk = settlement.attempt.pk
    taken.save(force_insert=True)

    assert outbox.settle([settlement], "default") == [settlement]
    assert Attempt.objects.filter(delivery=made).count() == 1


def test_work_and_mark_are_one_transaction_the_mark_last():
    made, _row = recorded(lease=MINE)
    settlement = Settlement(made, State.DELIVERED, attempt_of(made))
    with CaptureQueriesContext(connection) as queries:
        outbox.settle_with(settlement, "default", lambda: Order.objects.create(number="A-1"))

    written = [sql.split(maxsplit=3) for sql in statements(queries, "INSERT", "UPDATE")]
    assert [words[0] for words in written] == ["INSERT", "INSERT", "UPDATE"]
    assert Order.objects.exists()
    assert Delivery.objects.get().state == "delivered"


def test_the_work_of_whoever_lost_the_lease_is_undone():
    made, _row = recorded(lease=MINE)
    Delivery.objects.update(epoch=F("epoch") + 1)
    settlement = Settlement(made, State.DELIVERED, attempt_of(made))
    with pytest.raises(LeaseLost, match=str(made.pk)):
        outbox.settle_with(settlement, "default", lambda: Order.objects.create(number="A-1"))

    assert not Order.objects.exists()
    assert not Attempt.objects.exists()
    assert Delivery.objects.get().state == "pending"


def test_work_that_raises_marks_nothing():
    made, _row = recorded(lease=MINE)
    with pytest.raises(ZeroDivisionError):
        outbox.settle_with(Settlement(made, State.DELIVERED), "default", lambda: 1 / 0)

    assert Delivery.objects.get().state == "pending"


# What is settled before the first attempt, and the remote's ids.


def test_what_is_frozen_stands_in_the_row_and_in_memory():
    made, _row = recorded(lease=MINE)
    outbox.freeze(made, "default", path="contacts/7", method="PATCH")

    row = Delivery.objects.get()
    assert (row.path, row.method) == (made.path, made.method) == ("contacts/7", "PATCH")


def test_only_the_holder_freezes():
    made, _row = recorded(lease=MINE)
    Delivery.objects.update(epoch=F("epoch") + 1)
    with pytest.raises(LeaseLost):
        outbox.freeze(made, "default", path="contacts/7")

    assert (Delivery.objects.get().path, made.path) == ("", "")


def test_an_id_is_kept_for_one_object_at_one_endpoint():
    made = new()
    assert outbox.remote_id(made, "default") is None
    outbox.keep_remote_id(made, "default", "c-7")
    outbox.keep_remote_id(made, "default", "c-8")

    assert outbox.remote_id(made, "default") == "c-8"
    assert RemoteObject.objects.count() == 1
    others = [{"object_pk": 2}, {"endpoint": "hubspot"}, {"dispatch": "shop.O"}, {"model": "x.y"}]
    assert [outbox.remote_id(new(**other), "default") for other in others] == [None] * 4
    outbox.forget_remote_id(new(object_pk=2), "default")
    assert outbox.remote_id(made, "default") == "c-8"
    outbox.forget_remote_id(made, "default")
    assert outbox.remote_id(made, "default") is None


def test_the_kept_answer_is_the_last_that_came():
    made = delivery()
    assert outbox.kept_answer(made, "default") is None
    for number, status in ((2, 200), (1, 503), (3, None)):
        attempt_of(made, number=number, status_code=status).save()
    attempt_of(delivery(), number=9, status_code=200).save()

    assert outbox.kept_answer(made, "default").number == 2
