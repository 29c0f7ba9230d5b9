"""The fenced record of what became of a delivery."""

import pytest
from django.db import connection, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from signal_dispatch import remote_ids, settling
from signal_dispatch.exceptions import LeaseLost
from signal_dispatch.models import Attempt, Delivery, RemoteObject, State
from signal_dispatch.settling import Settlement
from tests.deliveries import MINE, attempt_of, delivery, new, recorded, seconds_until, statements
from tests.shop.models import Order

pytestmark = pytest.mark.django_db


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
        assert set(map(id, settling.settle(batch, "default"))) == set(map(id, batch))

    assert len(statements(queries, "SELECT", "UPDATE", "INSERT")) == 2


def test_each_of_a_batch_gets_its_own_record():
    batch = settled_batch()
    settling.settle(batch, "default")
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


def test_what_all_of_a_batch_have_alike_is_written_once():
    """A batch is mostly of calls that were delivered at the first attempt."""
    batch = [
        Settlement(made, State.DELIVERED, attempt_of(made, status_code=200, duration_ms=number))
        for number, made in enumerate(recorded(lease=MINE, object_pk=n)[0] for n in range(28))
    ]
    with CaptureQueriesContext(connection) as queries:
        settling.settle(batch, "default")
    (update,) = statements(queries, "UPDATE")

    assert update.count("CASE") == 1, "the milliseconds differ"
    told = Delivery.objects.order_by("id").values_list("state", "attempts", "last_status")
    assert set(told) == {("delivered", 1, 200)}
    took = Delivery.objects.order_by("id").values_list("last_duration_ms", flat=True)
    assert list(took) == list(range(28))


def test_each_of_a_batch_is_fenced_by_its_own_epoch():
    lost, kept, other = (recorded(lease=MINE, object_pk=n)[0] for n in range(3))
    Delivery.objects.filter(pk=lost.pk).update(epoch=2, held_by="another")
    Delivery.objects.filter(pk=other.pk).update(epoch=2)
    other.epoch = 2
    batch = [Settlement(made, State.DELIVERED) for made in (lost, kept, other)]
    accepted = settling.settle(batch, "default")

    assert [s.delivery.pk for s in accepted] == [kept.pk, other.pk]
    states = Delivery.objects.order_by("id").values_list("state", flat=True)
    assert list(states) == ["pending", "delivered", "delivered"]


def test_what_is_tried_again_counts_as_a_retry_from_then_on():
    batch = settled_batch()
    settling.settle(batch, "default")
    again = batch[1].delivery
    assert [Delivery.objects.get(pk=s.delivery.pk).retried for s in batch] == [False, True, False]
    again.refresh_from_db()
    settling.settle([Settlement(again, State.PENDING, error_class="internal")], "default")

    assert Delivery.objects.get(pk=again.pk).retried


def test_an_attempt_that_was_not_made_makes_no_retry():
    made = recorded(lease=MINE)[0]
    settling.settle([Settlement(made, State.PENDING, error_class="internal")], "default")

    assert not Delivery.objects.get(pk=made.pk).retried


def test_it_is_kept_until_when_the_remote_asked_for_peace():
    asked, other = (recorded(lease=MINE)[0] for _ in range(2))
    settling.settle(
        [
            Settlement(asked, State.PENDING, attempt_of(asked), delay=90, after=60),
            Settlement(other, State.PENDING, attempt_of(other), delay=90),
        ],
        "default",
    )

    assert 50 < seconds_until(Delivery.objects.get(pk=asked.pk).not_before) < 61
    assert Delivery.objects.get(pk=other.pk).not_before is None


def test_an_attempt_that_was_not_made_leaves_the_last_answer_in_view():
    made, _row = recorded(lease=MINE)
    settling.settle([Settlement(made, State.PENDING, attempt_of(made, status_code=503))], "default")
    made.refresh_from_db()
    settling.settle([Settlement(made, State.PENDING, error_class="internal")], "default")

    made.refresh_from_db()
    assert (made.last_status, made.attempts, made.error_class) == (503, 1, "internal")


def test_the_delivery_in_memory_shows_what_was_written():
    for settlement in settled_batch():
        settling.settle([settlement], "default")
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

    assert settling.settle(batch, "default") == [batch[0], batch[2]]
    assert Delivery.objects.filter(pk=lost.pk).values().get() == before
    assert Attempt.objects.filter(delivery=lost).count() == 1


@pytest.mark.parametrize("state", [State.PENDING, State.FAILED])
def test_a_commit_that_nobody_heard_of_is_not_undone(state):
    made, _row = recorded(lease=MINE)
    attempt = attempt_of(made, status_code=200, sender="me")
    settling.settle_with(Settlement(made, State.DELIVERED, attempt), "default", lambda: None)
    doubtful = Settlement(made, state, attempt, error_class="handler")

    assert settling.settle([doubtful], "default") == []
    made.refresh_from_db()
    assert (made.state, made.error_class) == ("delivered", "")
    assert Attempt.objects.count() == 1


def test_a_batch_that_was_committed_unheard_is_accepted_again_with_its_attempts_once():
    batch = settled_batch()
    settling.settle(batch, "default")
    Delivery.objects.filter(pk=batch[1].delivery.pk).update(epoch=F("epoch") + 1)

    assert settling.settle(batch, "default") == [batch[0], batch[2]]
    assert Attempt.objects.count() == 2


def test_a_batch_of_retries_that_was_committed_unheard_has_its_attempts_once():
    batch = [settled_batch()[1], settled_batch()[1]]
    settling.settle(batch, "default")

    assert settling.settle(batch, "default") == batch
    assert Attempt.objects.count() == 2


def test_a_delivery_that_is_gone_takes_its_attempt_along():
    batch = settled_batch()
    Delivery.objects.filter(pk=batch[0].delivery.pk).delete()

    assert settling.settle(batch, "default") == batch[1:]
    assert Attempt.objects.count() == 1


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "x" * 600])
def test_no_text_keeps_a_record_from_being_written(text):
    made, _row = recorded(lease=MINE)
    attempt = attempt_of(made, error=text)
    settling.settle([Settlement(made, State.FAILED, attempt, reason=text)], "default")

    reason = Delivery.objects.get(pk=made.pk).reason
    assert len(reason) == min(len(text), 500)
    assert (reason[0], reason[-1]) == (text[0], text[-1])
    assert len(Attempt.objects.get().error) == len(text)


def test_a_record_that_was_rolled_back_is_written_anew():
    # SQLite gives out the numbers of a rolled-back transaction once more.
    made, _row = recorded(lease=MINE)
    settlement = Settlement(made, State.DELIVERED, attempt_of(made))
    with transaction.atomic():
        settling.settle([settlement], "default")
        transaction.set_rollback(True)
    other, _row = recorded(lease=MINE)
    taken = attempt_of(other)
    taken.pk = settlement.attempt.pk
    taken.save(force_insert=True)

    assert settling.settle([settlement], "default") == [settlement]
    assert Attempt.objects.filter(delivery=made).count() == 1


def test_work_and_mark_are_one_transaction_the_mark_last():
    made, _row = recorded(lease=MINE)
    settlement = Settlement(made, State.DELIVERED, attempt_of(made))
    with CaptureQueriesContext(connection) as queries:
        settling.settle_with(settlement, "default", lambda: Order.objects.create(number="A-1"))

    written = [sql.split(maxsplit=3) for sql in statements(queries, "INSERT", "UPDATE")]
    assert [words[0] for words in written] == ["INSERT", "UPDATE", "INSERT"]
    assert Order.objects.exists()
    assert Delivery.objects.get().state == "delivered"


def test_two_tries_of_one_process_under_one_number_are_both_on_record():
    """As of a send() that came back after its limit, when the process had tried again."""
    made, _row = recorded(lease=MINE)
    tries = [attempt_of(made, sender="me"), attempt_of(made, sender="me")]
    settling.settle([Settlement(made, State.DELIVERED, tries[1])], "default")
    made.epoch -= 1
    for _again in range(2):  # the late one, and word of its commit was lost
        assert settling.settle([Settlement(made, State.DELIVERED, tries[0])], "default") == []

    assert sorted(Attempt.objects.values_list("started_at", flat=True)) == [
        each.started_at for each in tries
    ]


def test_the_work_of_whoever_lost_the_lease_is_undone():
    made, _row = recorded(lease=MINE)
    Delivery.objects.update(epoch=F("epoch") + 1)
    settlement = Settlement(made, State.DELIVERED, attempt_of(made))
    with pytest.raises(LeaseLost, match=str(made.pk)):
        settling.settle_with(settlement, "default", lambda: Order.objects.create(number="A-1"))

    assert not Order.objects.exists()
    assert not Attempt.objects.exists()
    assert Delivery.objects.get().state == "pending"


def test_work_that_raises_marks_nothing():
    made, _row = recorded(lease=MINE)
    with pytest.raises(ZeroDivisionError):
        settling.settle_with(Settlement(made, State.DELIVERED), "default", lambda: 1 / 0)

    assert Delivery.objects.get().state == "pending"


# What is settled before the first attempt, and the remote's ids.


def test_what_is_frozen_stands_in_the_row_and_in_memory():
    made, _row = recorded(lease=MINE)
    settling.freeze(made, "default", path="contacts/7", method="PATCH")

    row = Delivery.objects.get()
    assert (row.path, row.method) == (made.path, made.method) == ("contacts/7", "PATCH")


def test_only_the_holder_freezes():
    made, _row = recorded(lease=MINE)
    Delivery.objects.update(epoch=F("epoch") + 1)
    with pytest.raises(LeaseLost):
        settling.freeze(made, "default", path="contacts/7")

    assert (Delivery.objects.get().path, made.path) == ("", "")


def test_an_id_is_kept_for_one_object_at_one_endpoint():
    made = new()
    assert remote_ids.known_id(made, "default") is None
    remote_ids.keep_id(made, "default", "c-7")
    remote_ids.keep_id(made, "default", "c-8")

    assert remote_ids.known_id(made, "default") == "c-8"
    assert RemoteObject.objects.count() == 1
    others = [{"object_pk": 2}, {"endpoint": "hubspot"}, {"dispatch": "shop.O"}, {"model": "x.y"}]
    assert [remote_ids.known_id(new(**other), "default") for other in others] == [None] * 4
    remote_ids.forget_id(new(object_pk=2), "default")
    assert remote_ids.known_id(made, "default") == "c-8"
    remote_ids.forget_id(made, "default")
    assert remote_ids.known_id(made, "default") is None


def test_the_kept_answer_is_the_last_that_came():
    made = delivery()
    assert settling.kept_answer(made, "default") is None
    for number, status in ((2, 200), (1, 503), (3, None)):
        attempt_of(made, number=number, status_code=status).save()
    attempt_of(delivery(), number=9, status_code=200).save()

    assert settling.kept_answer(made, "default").number == 2
