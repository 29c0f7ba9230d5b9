"""Deliveries that somebody lets go out again: what goes back, where to, and what must not."""

import threading
from contextlib import contextmanager

import pytest
from django.db import connections, transaction

from signal_dispatch import Event, lanes, settling
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Attempt, Delivery, State
from signal_dispatch.repairing import foresee, retry
from signal_dispatch.settling import Settlement
from tests.deliveries import attempt_of, delivery, seconds_until
from tests.sending import attempt
from tests.settings import DATABASE
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = pytest.mark.django_db

ENDED = {"available_at": None, "finished_at": DatabaseNow()}
LATER = DatabaseNow(3600)


def failed(**values):
    defaults = {"state": "failed", "error_class": "status", "reason": "It answered 400."}
    return delivery(**ENDED | defaults | values)


def rows():
    return list(Delivery.objects.order_by("id"))


def states():
    return [row.state for row in rows()]


def retried(*made):
    chosen = Delivery.objects.filter(pk__in=[each.pk for each in made])
    foreseen = foresee(chosen)
    done = retry(chosen)
    assert len(foreseen) == done, "it is foreseen what is done"
    return done


# What goes back


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_ended_is_due_now_and_its_attempts_go_on(state):
    made = failed(state=state, attempts=4, epoch=6, last_status=400)
    assert retried(made) == 1

    row = Delivery.objects.get()
    assert (row.state, row.held_by, row.finished_at) == ("pending", "", None)
    assert -5 < seconds_until(row.available_at) < 5
    assert (row.attempts, row.epoch, row.last_status) == (4, 7, 400)


def test_what_is_scheduled_is_due_now_and_what_is_leased_or_due_stays():
    scheduled = delivery(available_at=LATER, attempts=2)
    left = [
        delivery(available_at=LATER, held_by="alive", epoch=1),
        delivery(available_at=DatabaseNow(-60)),
        delivery(state="waiting", available_at=None, not_before=LATER),
        delivery(**ENDED, state="delivered"),
    ]
    before = list(Delivery.objects.filter(pk__in=[d.pk for d in left]).order_by("pk").values())
    assert retry(Delivery.objects.all()) == 1

    row = Delivery.objects.get(pk=scheduled.pk)
    assert seconds_until(row.available_at) < 5
    assert (row.attempts, row.epoch) == (2, 1)
    after = list(Delivery.objects.filter(pk__in=[d.pk for d in left]).order_by("pk").values())
    assert after == before


def test_who_had_it_before_can_not_settle_it_now():
    made = failed(epoch=3)
    retried(made)
    late = Settlement(made, State.DELIVERED, attempt_of(made))

    assert settling.settle([late], "default") == []
    assert states() == ["pending"]


def test_what_was_replaced_stays():
    heir = delivery()
    failed(replaced_by=heir, error_class="lost")
    failed(replaced_by=heir, state="cancelled")

    assert retry(Delivery.objects.all()) == 0
    assert states() == ["pending", "failed", "cancelled"]


def test_slices_are_taken():
    first, _second = failed(), failed()
    assert retry(Delivery.objects.order_by("id")[:1]) == 1
    assert states() == ["pending", "failed"]
    assert retry(Delivery.objects.none()) == 0
    assert retried(first) == 0, "it is due already"


@pytest.mark.django_db(databases=["default", "other"])
def test_rows_go_back_where_they_are():
    delivery("other", **ENDED, state="failed")
    failed()

    assert retry(Delivery.objects.using("other").all()) == 1
    assert Delivery.objects.using("other").get().state == "pending"
    assert states() == ["failed"]


def test_hundreds_go_back():
    for number in range(3):
        failed(lane=f"lane {number}")
    Delivery.objects.bulk_create(failed_copies(1200))

    assert retry(Delivery.objects.all()) == 1203
    assert set(states()) == {"pending"}


def failed_copies(many):
    values = {"dispatch": "shop.Told", "endpoint": "crm", "event": "updated", "method": "POST"}
    return [
        Delivery(
            **values, model="shop.order", object_pk=n, state="failed", created_at=DatabaseNow()
        )
        for n in range(many)
    ]


# What is done with it then


@pytest.fixture
def handled(declare):
    """Declare a dispatch whose handler is broken until its ``broken`` is False."""

    def handle_response(dispatch, delivery, response):
        if made.broken:
            raise RuntimeError("not today")
        Order.objects.filter(pk=delivery.object_pk).update(crm_id=response.json()["id"])

    made = declare(Order, handle_response=handle_response, on=[Event.CREATED])
    made.broken = True
    return made


def test_a_kept_answer_is_handled_again_and_no_call_made(handled, receiver, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": receiver.url, "RETRY": {"delays": [0, 0], "jitter": 0}}
    }
    receiver.reply(201, body=b'{"id": "c-7"}')
    Order.objects.create(number="A-1")
    attempt()
    attempt()
    (row,) = rows()
    assert (row.state, row.error_class, row.handler_tries) == ("failed", "handler", 2)

    assert retried(row) == 1
    attempt()
    assert states() == ["failed"], "one more try, and the policy has none left"
    handled.broken = False
    assert retried(row) == 1
    attempt()

    assert states() == ["delivered"]
    assert Order.objects.get().crm_id == "c-7"
    assert (len(receiver.requests), Attempt.objects.count()) == (1, 1)


def test_an_id_that_was_not_found_is_looked_for_in_the_kept_answer(declare, receiver):
    made = declare(Order, on=[Event.CREATED], remote_id="id")
    receiver.reply(201, body=b'{"data": {"id": "c-7"}}')
    Order.objects.create(number="A-1")
    attempt()
    assert rows()[0].error_class == "handler"
    made.remote_id = "data.id"
    retry(Delivery.objects.all())
    attempt()

    assert (states(), len(receiver.requests)) == (["delivered"], 1)


def test_what_failed_otherwise_is_called_again(declare, receiver):
    declare(Order)
    for values in (
        {"error_class": "status"},
        {"error_class": "too_large", "handler_tries": 1},
        {"error_class": "timeout"},
    ):
        made = failed(attempts=1, **values)
        answer = attempt_of(made, number=1, status_code=200, response_body=b"{}")
        answer.save()
    assert retry(Delivery.objects.all()) == 3
    attempt()

    assert states() == ["delivered"] * 3
    assert len(receiver.requests) == 3
    assert sorted(Attempt.objects.values_list("number", flat=True)) == [1, 1, 1, 2, 2, 2]


def test_an_answer_stays_kept_when_something_else_failed_last(handled, receiver):
    order = Order.objects.create(number="A-1")
    Delivery.objects.all().delete()
    made = failed(object_pk=order.pk, error_class="internal", attempts=2, handler_tries=1)
    attempt_of(made, number=1, status_code=201, response_body=b'{"id": "c-1"}').save()
    handled.broken = False
    retried(made)
    attempt()

    assert (states(), receiver.requests) == (["delivered"], [])


def test_what_could_not_be_built_is_built_from_the_object_as_it_is_then(declare, receiver):
    declare(Order, path="orders/{number}", method="PUT")
    order = Order.objects.create(number="A-1", status="paid")
    Delivery.objects.all().delete()
    failed(object_pk=order.pk, method="", error_class="build")
    failed(object_pk=order.pk, method="", error_class="build", event="deleted")

    assert retry(Delivery.objects.all()) == 1
    attempt()
    assert states() == ["delivered", "failed"]
    (request,) = receiver.requests
    assert (request.method, request.path) == ("PUT", "/orders/A-1")
    assert request.json["status"] == "paid"


# Its place in the lane


def lane(*described):
    """Make the deliveries of one lane, each given as "event state" with more words behind."""
    kinds = {
        "failed": {**ENDED, "state": "failed"},
        "handler": {**ENDED, "state": "failed", "error_class": "handler"},
        "too_large": {**ENDED, "state": "failed", "error_class": "too_large"},
        "delivered": {**ENDED, "state": "delivered"},
        "cancelled": {**ENDED, "state": "cancelled"},
        "waiting": {"available_at": None, "state": "waiting"},
        "scheduled": {"available_at": LATER},
        "held": {"available_at": LATER, "held_by": "alive", "epoch": 1},
    }
    for text in described:
        event, kind = text.split()
        delivery(lane="a", event=event, **kinds[kind])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # All of them in their order, the first of them at once.
        (
            ["created failed", "updated failed", "updated cancelled"],
            ["pending", "waiting", "waiting"],
        ),
        # Before what is newer and was not begun.
        (["updated failed", "updated waiting"], ["pending", "waiting"]),
        # Behind what is older.
        (["updated held", "updated failed"], ["pending", "waiting"]),
        (["refunded held", "updated waiting", "updated failed"], ["pending", "waiting", "waiting"]),
        (["updated waiting", "updated failed"], ["waiting", "waiting"]),
        # Not where a newer state is told already, or just now.
        (["updated failed", "updated delivered"], ["failed", "delivered"]),
        (["updated failed", "updated held"], ["failed", "pending"]),
        (["created failed", "updated scheduled"], ["failed", "pending"]),
        (["updated failed", "updated handler"], ["failed", "pending"]),
        (["updated failed", "updated too_large"], ["failed", "pending"]),
        (["deleted failed", "created delivered"], ["failed", "delivered"]),
        # Only what was told counts.
        (["updated failed", "updated cancelled"], ["pending", "waiting"]),
        (["updated failed", "refunded delivered"], ["pending", "delivered"]),
        (["updated delivered", "updated failed"], ["delivered", "pending"]),
        # An event of the site's own is no state.
        (["refunded failed", "updated delivered"], ["pending", "delivered"]),
        (["refunded failed", "updated held"], ["waiting", "pending"]),
        # What is only handled again overwrites nothing.
        (["updated handler", "updated delivered"], ["pending", "delivered"]),
    ],
)
def test_it_goes_back_to_its_place_in_the_lane(before, after):
    lane(*before)
    count = retry(Delivery.objects.all())

    assert states() == after
    assert count == Delivery.objects.filter(epoch=1, held_by="").count()


def test_they_are_sent_in_their_order_with_what_waits(declare, receiver):
    declare(Order)
    lane("created failed", "updated failed", "updated waiting")
    for number, row in enumerate(rows()):
        Delivery.objects.filter(pk=row.pk).update(path=str(number))
    retry(Delivery.objects.all())
    attempt()

    assert [request.path for request in receiver.requests] == ["/0", "/1", "/2"]
    assert set(states()) == {"delivered"}


def test_a_transaction_that_is_rolled_back_takes_it_back():
    made = failed(lane="a")
    with transaction.atomic():
        assert retried(made) == 1
        transaction.set_rollback(True)

    assert states() == ["failed"]


@pytest.mark.django_db(transaction=True)
def test_threads_send_it_at_once(declare, receiver, as_in_production):
    declare(Order)
    failed(lane="a")
    failed(lane="a")
    assert retry(Delivery.objects.all()) == 2

    receiver.wait_for(2)
    eventually(lambda: states() == ["delivered"] * 2)


# Beside others


@contextmanager
def in_a_transaction(work):
    """Let another thread do something, and commit when the block ends or waits for its locks."""
    begun, done = threading.Event(), threading.Event()

    def run():
        with transaction.atomic():
            work()
            begun.set()
            done.wait(0.5)
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert begun.wait(10)
        yield
    finally:
        done.set()
        thread.join(10)


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(DATABASE == "sqlite-memory", reason="A thread is locked out of it at once.")
def test_whoever_saves_just_now_is_waited_for_and_outruns_it(declare):
    declare(Order)
    order = Order.objects.create(number="A-1")
    Delivery.objects.update(state="failed", **ENDED)
    with in_a_transaction(order.save):
        count = retry(Delivery.objects.all())

    assert (count, states()) == (0, ["failed", "pending"])


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(DATABASE == "sqlite-memory", reason="A thread is locked out of it at once.")
def test_whoever_releases_the_lane_just_now_is_waited_for_and_outruns_it():
    lane("updated failed", "updated waiting")
    with in_a_transaction(lambda: lanes.release("default", ["a"], None)):
        count = retry(Delivery.objects.all())

    assert (count, states()) == (0, ["failed", "pending"])


@pytest.mark.django_db(transaction=True)
def test_whoever_releases_the_lane_a_moment_later_leaves_it(monkeypatch):
    lane("updated failed", "updated waiting")
    first_of_each = lanes.first_of_each

    def retry_in_between(*arguments):
        found = first_of_each(*arguments)
        retry(Delivery.objects.all())
        return found

    monkeypatch.setattr(lanes, "first_of_each", retry_in_between)
    released = lanes.release("default", ["a"], None)

    assert states() == ["pending", "waiting"]
    assert list(released.taken) == []
