"""Threads that really run, over real HTTP: what is sent, what is not, and how all of it ends."""

import logging
import random
import threading
import time
from contextvars import ContextVar
from dataclasses import replace
from math import inf

import pytest
from django.db import OperationalError, connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from signal_dispatch import (
    ModelDispatch,
    RetryPolicy,
    claims,
    gates,
    hand,
    loops,
    records,
    renewing,
    sender_threads,
)
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.exceptions import EndpointNotMocked, LeaseLost
from signal_dispatch.jobs import Job, Place
from signal_dispatch.models import Attempt, Delivery, State
from signal_dispatch.outbox import Lease, record
from signal_dispatch.queueing import Recorded
from signal_dispatch.scopes import Scope
from signal_dispatch.sender_threads import SenderThreads
from signal_dispatch.worker import Worker
from tests import savepoints
from tests.deliveries import delivery
from tests.shop.models import Customer, Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
]

CRM = Place("default", "crm")
SCOPE = Scope("", frozenset({"crm"}), frozenset({("shop.Told", "shop.order")}))


@pytest.fixture
def make(declare, receiver):
    """Make workers that end with the test; ``declare(Order)`` is done."""
    made = []
    declare(Order)

    def make(**options):
        made.append(Worker(lambda: SCOPE, **{"sweep_seconds": 0.5} | options))
        return made[-1]

    yield make
    for each in made:
        each.stop(5)


def save(to=None, *, lease=True, path="", since=None, **values):
    """Record a delivery as the dispatcher does, and note its lease with the worker."""
    made = Delivery(
        dispatch="shop.Told",
        endpoint="crm",
        event="updated",
        model="shop.order",
        object_pk=1,
        method="POST",
        path=path,
        **values,
    )
    began = time.monotonic() if since is None else since
    record(made, "default", lease=Lease(claims.holder(), 60) if lease else None)
    leased = lease and made.state == State.PENDING
    item = Recorded(made, "default", leased=leased, since=began)
    if to:
        to.remember(item)
    return item


def commit(to, *items, fresh=True):
    to.committed(items, "default", fresh=fresh)


def states():
    return list(Delivery.objects.order_by("id").values_list("state", flat=True))


def all_delivered():
    return set(states()) == {"delivered"}


def threads_of_ours():
    return [t.name for t in threading.enumerate() if t.name.startswith("signal_dispatch-")]


def held_calls(receiver):
    """Let calls hang until the event is set."""
    go = threading.Event()

    def hold(request):
        receiver.hold(go)
        return (200, {}, b"{}")

    receiver.script = hold
    return go


# What is sent.


def test_a_transaction_that_outlasted_its_lease_is_sent_soon_all_the_same(make, receiver):
    mine = make(sweep_seconds=600, max_sleep_seconds=600)
    mine.start()
    eventually(lambda: mine._bookkeeper.sweeper._begun)
    eventually(lambda: mine._bookkeeper.sweeper.next_at(time.monotonic()) > time.monotonic() + 60)
    item = save(mine)
    with mine._hand.lock:  # as check_watched() does when the lease is over
        mine._hand.watched.clear()
    Delivery.objects.update(available_at=DatabaseNow(-1))
    commit(mine, item, fresh=False)

    receiver.wait_for(1)
    eventually(all_delivered)


def test_a_committed_delivery_is_sent_from_memory_and_recorded(make, receiver):
    mine = make()
    item = save(mine, path="orders/1")
    with CaptureQueriesContext(connection) as queries:
        commit(mine, item)

    (request,) = receiver.wait_for(1)
    assert request.path == "/orders/1"
    eventually(all_delivered)
    assert Attempt.objects.get().sender == claims.holder()
    assert len(queries) == 0, "the thread that saves asks nothing"


def test_nothing_runs_before_the_first_delivery(make):
    before = threads_of_ours()
    mine = make()
    assert threads_of_ours() == before == []
    mine.finish(1)
    mine.stop(1)
    assert threads_of_ours() == []
    other = make()
    assert other.has_room_for(CRM)
    assert threads_of_ours() == ["signal_dispatch-bookkeeper"]


def test_what_is_read_back_is_sent_as_it_was_committed(make, receiver):
    mine = make()
    item = save(mine, path="first")
    Delivery.objects.update(path="last")
    commit(mine, item, fresh=False)

    assert receiver.wait_for(1)[0].path == "/last"


def test_what_a_savepoint_took_back_is_not_sent(make, receiver):
    mine = make()
    with transaction.atomic():
        point = savepoints.create()
        gone = save(mine, path="gone")
        transaction.savepoint_rollback(point)
    commit(mine, gone, fresh=False)
    commit(mine, save(mine, path="kept"), fresh=False)
    mine.drain(10)

    assert [r.path for r in receiver.requests] == ["/kept"]


def test_two_hints_for_one_delivery_send_it_once(make, receiver):
    mine = make()
    item = save(mine)
    commit(mine, item)
    commit(mine, item)
    commit(mine, item, fresh=False)
    mine.drain(10)

    assert len(receiver.requests) == 1


def test_what_nobody_leased_is_swept_at_once(make, receiver):
    mine = make(sweep_seconds=60)
    mine.drain(10)
    commit(mine, save(mine, lease=False))

    receiver.wait_for(1, timeout=5)


def test_whoever_waited_looks_again_after_the_commit(make, receiver):
    # The head was settled between the INSERT that saw it and the commit: nobody else will look.
    head = delivery(lane="a")
    item = save(None, lane="a")
    assert item.delivery.state == State.WAITING
    Delivery.objects.filter(pk=head.pk).update(state="delivered", available_at=None)
    mine = make()
    commit(mine, item)

    receiver.wait_for(1)
    eventually(all_delivered)


def test_a_lane_goes_one_after_the_other_and_only_after_the_record(make, receiver):
    mine, seen = make(), []
    receiver.script = lambda request: (seen.append(request.path), (200, {}, b"{}"))[1]
    items = [save(mine, lane="a", path=str(n)) for n in range(5)]
    assert states() == ["pending", *["waiting"] * 4]
    commit(mine, *items)
    mine.drain(10)

    assert seen == [f"/{n}" for n in range(5)]
    assert all_delivered()


def test_a_failed_call_is_made_again(make, receiver):
    receiver.play((503, {}, b""), (200, {}, b"{}"))
    mine = make()
    commit(mine, save(mine))

    first, second = receiver.wait_for(2)
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    eventually(all_delivered)
    assert Attempt.objects.count() == 2


def test_a_burst_costs_few_statements(make, receiver):
    mine, counted = make(), []
    settle = records.settle_all

    def count(settlements, using):
        counted.append(len(settlements))
        return settle(settlements, using)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "settle_all", count)
        commit(mine, *[save(mine) for _ in range(40)])
        mine.drain(15)

    assert sum(counted) == 40
    assert len(counted) < 25, counted


# Giving way to each other, and to the threads that save.


@pytest.fixture
def giving_way(monkeypatch):
    """Say for how long senders give way: for ever, but for what the test says in seconds."""

    def give_way(**seconds):
        # The bookkeeper wakes everybody when it looks around.
        monkeypatch.setattr(gates, "REFRESH_SECONDS", 3600.0)
        for name in ("LOOP_SECONDS", "BUSY_SECONDS", "PATIENCE_SECONDS", "LATE_SECONDS"):
            monkeypatch.setattr(hand, name, seconds.get(name, 3600.0))

    return give_way


def test_calls_that_are_answered_soon_go_one_at_a_time(make, receiver, giving_way):
    giving_way(PATIENCE_SECONDS=0)
    lock, now, most = threading.Lock(), [0], [0]

    def count(request):
        with lock:
            now[0] += 1
            most[0] = max(now[0], most[0])
        receiver.wait(0.02)
        with lock:
            now[0] -= 1
        return (200, {}, b"{}")

    receiver.script = count
    mine = make(max_senders=8)
    for _ in range(12):
        commit(mine, save(mine))
    mine.drain(10)

    assert len(receiver.requests) == 12
    assert most == [1]


def test_no_more_threads_start_for_them_than_one_that_sends_and_one_that_waits(
    make, receiver, giving_way
):
    giving_way(PATIENCE_SECONDS=0)
    go = held_calls(receiver)
    mine = make()
    commit(mine, save(mine))
    receiver.wait_for(1)
    commit(mine, save(mine))
    eventually(lambda: mine._senders._looks_at < inf)
    for _ in range(10):
        commit(mine, save(mine))
    assert len(mine._senders.alive) == 2
    assert len(receiver.requests) == 1
    go.set()
    mine.drain(10)


def test_while_a_loop_saves_no_call_begins(make, receiver, giving_way):
    giving_way(BUSY_SECONDS=0)
    mine = make()
    mine._hand.took = 0.001
    few = (hand.LONG_BURST - 1) // 2  # a save is noted twice
    for number in range(few + 10):
        commit(mine, save(mine))
        receiver.wait_for(min(number + 1, few))
    assert len(receiver.requests) == few

    mine._hand._loop.seconds = 0.0
    commit(mine, save(mine))  # at which one who waits for the end of the loop looks
    mine.drain(10)
    assert len(receiver.requests) == few + 11


@pytest.mark.parametrize(
    "over",
    [
        pytest.param({"LOOP_SECONDS": 0.3, "BUSY_SECONDS": 0.1}, id="the loop is over"),
        pytest.param({"PATIENCE_SECONDS": 0.3, "BUSY_SECONDS": 0.1}, id="it was heeded for long"),
        pytest.param({"PATIENCE_SECONDS": 0, "BUSY_SECONDS": 0.1}, id="those before only wait"),
    ],
)
def test_what_was_held_back_goes_though_no_call_ends_and_nobody_saves(
    make, receiver, giving_way, monkeypatch, settings, over
):
    giving_way(**over)
    monkeypatch.setattr(renewing, "HINT_SECONDS", 3600.0)
    settings.SIGNAL_DISPATCH_LEASE_SECONDS = 3600
    go = held_calls(receiver)
    mine = make(sweep_seconds=3600)
    mine._hand.took = 0.001
    commit(mine, *[save(mine) for _ in range(6)])

    receiver.wait_for(6)
    go.set()
    mine.drain(10)


def test_only_saves_of_other_threads_make_a_burst(make, receiver, monkeypatch):
    deliver, mine, seen = sender_threads.deliver, make(), []

    def deliver_and_save(*arguments, **values):
        with mine._hand.lock:
            mine._hand._burst.noted_at = 0.0
        item = Recorded(Delivery(pk=10**9), "default", leased=True)
        mine.remember(item)  # as when handle_response() saves
        commit(mine, item, fresh=False)
        seen.append(mine._hand._burst.noted_at)
        return deliver(*arguments, **values)

    monkeypatch.setattr(sender_threads, "deliver", deliver_and_save)
    began, item = time.monotonic(), save(mine)
    remembered = mine._hand._burst.noted_at
    commit(mine, item)
    committed = mine._hand._burst.noted_at
    mine.drain(10)

    assert began < remembered < committed
    assert seen == [0.0]


@pytest.mark.parametrize("seed", range(3))
def test_no_job_is_left_lying_however_saves_and_calls_fall(make, monkeypatch, seed):
    # In each round one call hangs until all others are made. Nothing but the senders themselves
    # helps these out: there is no bookkeeper, and nobody saves any more.
    chance, sent, go = random.Random(seed), [], threading.Event()
    rounds = [[chance.choice([0, 0.001, 0.02, 0.06]) for _ in range(7)] for _ in range(20)]

    def deliver(delivery, using, sessions, **kwargs):
        if delivery.handler_tries:
            go.wait(30)
        time.sleep(delivery.attempts)
        sent.append(delivery)
        raise LeaseLost  # then there is nothing to record

    monkeypatch.setattr(sender_threads, "deliver", deliver)
    mine = make(max_senders=4, idle_seconds=3600)
    for times in rounds:
        hangs = chance.randrange(len(times))
        for number, seconds in enumerate(times):
            with mine._hand.lock:
                mine._hand.note_save()
            made = Delivery(endpoint="crm", attempts=seconds, handler_tries=number == hangs)
            assert mine.submit(Job(made, "default", time.monotonic()))
            time.sleep(chance.choice([0, 0, 0.001, 0.005]))
        eventually(lambda: len(sent) == len(rounds[0]) - 1)
        go.set()
        eventually(lambda: mine._hand.is_empty)
        go.clear()
        sent.clear()


# Room.


def test_more_than_fits_is_left_in_the_table_and_sent_later(make, receiver):
    go = held_calls(receiver)
    mine = make(max_senders=1, queue_size=2)
    items = [save(mine) for _ in range(2)]
    commit(mine, *items)
    receiver.wait_for(1)
    while mine.has_room_for(CRM):
        commit(mine, save(mine))
    commit(mine, save(mine, lease=False))
    go.set()
    mine.drain(10)

    assert all_delivered()
    assert len(receiver.requests) == Delivery.objects.count() == 4


def test_senders_pause_while_answers_cannot_be_recorded(make, receiver, monkeypatch):
    monkeypatch.setattr(sender_threads, "MAX_UNRECORDED", 3)
    monkeypatch.setattr(loops, "MAX_PAUSE_SECONDS", 0.05)
    settle, away = records.settle_all, [True]

    def settle_when_back(*arguments):
        if away:
            raise OperationalError("gone away")
        return settle(*arguments)

    monkeypatch.setattr(records, "settle_all", settle_when_back)
    mine = make(max_senders=2, idle_seconds=0.1)
    commit(mine, *[save(mine, since=time.monotonic()) for _ in range(12)])
    receiver.wait_for(3)
    # Long enough for a sender that takes the pause for idleness to end.
    until = time.monotonic() + 0.5
    eventually(lambda: time.monotonic() > until)
    assert len(receiver.requests) <= 3 + 2
    away.clear()

    mine.drain(10)
    assert all_delivered()
    assert len(receiver.requests) == 12


def test_what_is_to_be_read_back_has_a_sender_already(make, receiver, monkeypatch):
    """As the script that committed it may end at once, and then no thread can be started."""
    mine = make()
    item = save(mine, since=time.monotonic())
    go_on, read_back = threading.Event(), claims.read_back
    monkeypatch.setattr(claims, "read_back", lambda *a: go_on.wait(10) and read_back(*a))
    commit(mine, item, fresh=False)
    start = threading.Thread.start

    def refuse(thread):
        if thread.name.startswith("signal_dispatch"):
            raise RuntimeError("can't create new thread at interpreter shutdown")
        start(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        go_on.set()
        eventually(lambda: states() == ["delivered"])


@pytest.mark.parametrize("fresh", [True, False])
def test_a_number_that_is_given_out_twice_is_sent_once(make, receiver, monkeypatch, fresh):
    """As on SQLite, where a savepoint rolled back by hand gives back the number, not the hook."""
    mine = make()
    reading, go_on = threading.Event(), threading.Event()
    read_back = claims.read_back

    def slow(*arguments):
        reading.set()
        assert go_on.wait(10)
        return read_back(*arguments)

    monkeypatch.setattr(claims, "read_back", slow)
    gone = save(mine, since=time.monotonic(), path="gone")
    Delivery.objects.all().delete()
    commit(mine, gone, fresh=False)
    assert reading.wait(10)
    again = save(since=time.monotonic(), path="again")
    Delivery.objects.update(id=gone.delivery.pk)
    again.delivery.pk = gone.delivery.pk
    mine.remember(again)
    commit(mine, gone, fresh=fresh)  # a second hook of the one that is gone
    go_on.set()
    commit(mine, again, fresh=fresh)
    mine.drain(10)

    assert all_delivered()
    assert [request.path for request in receiver.requests] == ["/again"]


def aged(mine, item, seconds):
    """Return what was recorded as if that were so many seconds ago."""
    old = replace(item, since=item.since - seconds)
    with mine._hand.lock:
        mine._hand.watched["default", item.delivery.pk] = old.since
    return old


@pytest.fixture
def asleep(make, monkeypatch):
    """Return a worker whose bookkeeper looks only at what it is woken for."""
    monkeypatch.setattr(renewing, "HINT_SECONDS", 0.2)
    monkeypatch.setattr(loops, "KEEP_SECONDS", 0.0)  # else it wakes once more, to close them
    return make(sweep_seconds=3600, max_sleep_seconds=3600)


def sleeps(mine, seconds):
    return mine._bookkeeper._looks_at > time.monotonic() + seconds


def assert_lease_is_kept(mine, receiver):
    go = held_calls(receiver)
    commit(mine, save(mine, since=time.monotonic() - 30))
    receiver.wait_for(1)

    eventually(lambda: [job.age < 25 for job in mine._hand.held()] == [True], 5)
    go.set()
    mine.drain(10)


def test_a_call_that_begins_while_the_bookkeeper_sleeps_keeps_its_lease(asleep, receiver):
    asleep.start()
    eventually(lambda: sleeps(asleep, 60))

    assert_lease_is_kept(asleep, receiver)


def test_nor_does_a_hint_that_got_lost_wait_until_it_wakes(asleep, receiver):
    asleep.start()
    eventually(lambda: sleeps(asleep, 60))
    save(asleep)

    receiver.wait_for(1)
    asleep.drain(10)


def test_nor_is_it_forgotten_between_the_commit_and_the_queue(asleep, receiver, monkeypatch):
    submit = asleep.submit

    def submit_late(job):  # the saver lost the interpreter, and the bookkeeper found nothing
        eventually(lambda: sleeps(asleep, 20))
        return submit(job)

    monkeypatch.setattr(asleep, "submit", submit_late)

    assert_lease_is_kept(asleep, receiver)


def test_a_job_that_waited_too_long_renews_its_lease_before_it_begins(make, receiver, settings):
    settings.SIGNAL_DISPATCH_LEASE_SECONDS = 60
    mine = make()
    item = save(mine)
    Delivery.objects.update(available_at=item.delivery.created_at)
    # The transaction took as long as the lease lasts.
    commit(mine, aged(mine, item, 50))
    mine.drain(10)
    assert len(receiver.requests) == 1

    stolen = save(mine)
    # Before it looks old: the bookkeeper reads back what it has not heard of for long.
    Delivery.objects.filter(pk=stolen.delivery.pk).update(
        held_by="you", epoch=2, available_at=stolen.delivery.created_at.replace(year=9000)
    )
    commit(mine, aged(mine, stolen, 50))
    mine.drain(10)
    assert len(receiver.requests) == 1, "somebody else has it"


# Waiting.


@pytest.mark.parametrize("bound", [0.1, 0.0999993168999936], ids=["asked", "what_is_left_of_it"])
def test_draining_tells_what_is_left_when_time_is_over(make, receiver, bound):
    go = held_calls(receiver)
    mine = make()
    commit(mine, save(mine))
    receiver.wait_for(1)

    with pytest.raises(TimeoutError, match=r"After 0\.1 s there is still 1 in flight, 0 ready"):
        mine.drain(bound)
    go.set()
    mine.drain(10)


def test_draining_tells_what_the_outbox_said_where_nothing_else_is_left(make, monkeypatch):
    def locked(*args, **options):
        raise OperationalError("database table is locked")

    look = claims.seconds_until_due
    monkeypatch.setattr(claims, "seconds_until_due", locked)
    mine = make(using=["default"])
    said = "an outbox that can't be looked into .OperationalError: database table is locked"
    with pytest.raises(TimeoutError, match=said):
        mine.drain(0.3)
    monkeypatch.setattr(claims, "seconds_until_due", look)
    mine.drain(10)
    assert mine._bookkeeper.met is None


def test_draining_finds_what_nobody_told_of(make, receiver):
    mine = make(sweep_seconds=60)
    mine.drain(10)
    delivery()
    mine.drain(10)

    assert all_delivered()


def test_draining_does_not_wait_for_a_later_retry(make, receiver, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": receiver.url, "RETRY": {"delays": [0, 60]}}
    }
    receiver.reply(503)
    mine = make()
    commit(mine, save(mine))
    mine.drain(10)

    assert states() == ["pending"]
    assert Delivery.objects.get().attempts == 1


def test_what_a_thread_met_under_test_is_raised_by_drain(make, monkeypatch):
    def refuse(*arguments, **values):
        raise EndpointNotMocked("crm is not mocked")

    monkeypatch.setattr(sender_threads, "deliver", refuse)
    mine = make(keep_errors=True)
    commit(mine, save(mine))
    with pytest.raises(EndpointNotMocked):
        eventually(lambda: mine.drain(10))
    mine.drain(10)
    assert Delivery.objects.get().error_class == "internal"


# Errors.


def test_a_delivery_that_breaks_our_own_code_to_the_end_is_told_of_as_failed(
    make, declare, settings, receiver, monkeypatch
):
    told = []

    class Told(ModelDispatch):
        def handle_failure(self, delivery, attempt):
            told.append((delivery.state, attempt.error_class))

    def broken(*arguments, **values):
        raise ZeroDivisionError("a bug of ours")

    declare(Order, base=Told, name="shop.Other", retry=RetryPolicy([0]))
    monkeypatch.setattr(sender_threads, "deliver", broken)
    mine = make()
    item = save(mine)
    item.delivery.dispatch = "shop.Other"
    commit(mine, item)
    mine.drain(10)

    assert told == [("failed", "internal")]
    assert Delivery.objects.get().error_class == "internal"


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug of ours"), SystemExit(1)])
def test_an_error_in_a_sender_leaves_the_others_going(
    make, receiver, settings, monkeypatch, caplog, error
):
    patient = {"URL": receiver.url, "RETRY": {"delays": [0, 60]}}
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": patient}
    deliver, errors = sender_threads.deliver, [error]

    def failing(*arguments, **values):
        if errors:
            raise errors.pop()
        return deliver(*arguments, **values)

    monkeypatch.setattr(sender_threads, "deliver", failing)
    mine = make(max_senders=1)
    commit(mine, *[save(mine) for _ in range(3)])
    receiver.wait_for(2)
    eventually(lambda: states().count("delivered") == 2)
    eventually(lambda: mine._hand.is_empty)

    left = Delivery.objects.get(state="pending")
    assert (left.error_class, left.held_by) == ("internal", "")
    assert left.reason == f"{type(error).__name__}: {error}"
    assert f"{left.pk} could not be tried" in caplog.text


def test_a_lost_lease_is_no_error(make, receiver, caplog):
    caplog.set_level(logging.INFO, "signal_dispatch")
    mine = make()
    item = save(mine)
    item.delivery.dispatch = "shop.Unknown"
    commit(mine, item)
    mine.drain(10)

    assert "Nothing here is registered as shop.Unknown" in caplog.text
    assert Delivery.objects.get(pk=item.delivery.pk).state == "pending"


def test_without_threads_there_is_no_room(make, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    mine = make()
    monkeypatch.setattr(threading.Thread, "start", refuse)

    assert not mine.has_room_for(CRM)
    assert not mine.start()


def test_without_a_sender_a_delivery_is_handed_back(make, receiver, monkeypatch):
    start = threading.Thread.start

    def refuse(thread):
        if "sender" in thread.name:
            raise RuntimeError("can't start new thread")
        start(thread)

    mine = make()
    mine.drain(10)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        item = save(mine)
        commit(mine, item)
        eventually(lambda: Delivery.objects.get().epoch >= 2)  # handed back, taken again
    eventually(all_delivered)
    mine.drain(10)
    assert len(receiver.requests) == 1


# Ending.


def test_idle_senders_end_and_the_next_delivery_starts_new_ones(make, receiver):
    mine = make(idle_seconds=0.1)
    commit(mine, save(mine))
    receiver.wait_for(1)
    eventually(lambda: threads_of_ours() == ["signal_dispatch-bookkeeper"])
    assert not mine._senders.alive
    commit(mine, save(mine))
    receiver.wait_for(2)
    eventually(all_delivered)


def test_no_more_senders_run_than_asked_for(make, receiver):
    go = held_calls(receiver)
    mine = make(max_senders=3)
    commit(mine, *[save(mine) for _ in range(8)])
    receiver.wait_for(3)
    assert len(threads_of_ours()) == 1 + 3
    go.set()
    mine.drain(10)
    assert len(receiver.requests) == 8


class Handling(ModelDispatch):
    def handle_response(self, delivery, response):
        Customer.objects.create(name=f"answer to {delivery.pk}")


def test_senders_that_run_hooks_close_their_connections(make, declare, receiver, monkeypatch):
    declare(Order, name="shop.Handled", base=Handling)
    open_after, next_job = [], SenderThreads._next_job

    def look(self, *, wait):
        if wait:
            open_after.extend(c.connection for c in connections.all(initialized_only=True))
        return next_job(self, wait=wait)

    monkeypatch.setattr(SenderThreads, "_next_job", look)
    mine = make(max_senders=1)
    items = [save(mine), save(mine)]
    for item in items:
        item.delivery.dispatch = "shop.Handled"
    commit(mine, *items)
    eventually(all_delivered)
    mine.drain(10)

    assert Customer.objects.count() == 2
    assert open_after
    assert set(open_after) == {None}


def test_stopping_records_every_answer_that_still_comes(make, receiver):
    go = held_calls(receiver)
    mine = make(max_senders=3)
    commit(mine, *[save(mine) for _ in range(5)])
    receiver.wait_for(3)
    stopping = threading.Thread(target=mine.stop, args=(10,))
    stopping.start()
    eventually(lambda: mine._hand.stopping)
    # The bookkeeper must go on: it is woken here, and nothing is settled yet.
    with mine._hand.lock:
        mine._hand.work.notify_all()
    go.set()
    stopping.join(10)

    assert states().count("delivered") == len(receiver.requests) == 3
    assert set(Delivery.objects.filter(state="pending").values_list("held_by", flat=True)) == {""}
    assert threads_of_ours() == []


def test_stopping_does_not_wait_for_a_call_that_hangs(make, receiver):
    go = held_calls(receiver)
    mine = make(max_senders=1)
    commit(mine, *[save(mine, since=time.monotonic()) for _ in range(2)])
    receiver.wait_for(1)
    began = time.monotonic()
    mine.stop(0.3)
    took = time.monotonic() - began
    go.set()

    assert took < 3
    hanging, other = Delivery.objects.order_by("id")
    assert (hanging.held_by, other.held_by) == (claims.holder(), "")
    assert not mine.submit(None), "it takes nothing any more"
    eventually(lambda: threads_of_ours() == [])


def test_finishing_sends_what_is_in_hand(make, receiver):
    mine = make(max_senders=1)
    commit(mine, *[save(mine) for _ in range(5)])
    mine.finish(10)

    assert all_delivered()
    assert threads_of_ours() == []
    mine.finish(10)  # once more is no harm


def test_finishing_has_an_end(make, receiver):
    go = held_calls(receiver)
    mine = make(max_senders=1)
    commit(mine, *[save(mine, since=time.monotonic()) for _ in range(2)])
    receiver.wait_for(1)
    began = time.monotonic()
    mine.finish(0.2)
    took = time.monotonic() - began
    go.set()

    assert took < 4
    assert Delivery.objects.filter(held_by="", state="pending").count() == 1
    eventually(lambda: threads_of_ours() == [])


def test_threads_know_nothing_of_the_request_that_started_them(make, monkeypatch):
    variable, seen = ContextVar("request", default="none"), []
    start = threading.Thread.start

    def inherit(thread):  # as tools for tracing do, and later Pythons
        if thread.name.startswith("signal_dispatch-"):
            seen.append(variable.get())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", inherit)
    token = variable.set("a request's")
    mine = make()
    commit(mine, save(mine))
    variable.reset(token)

    assert seen == ["none", "none"]


def test_draining_waits_for_the_answer_to_a_question_that_is_open(make):
    mine = make()
    mine._started = lambda: True
    sweeper = mine._bookkeeper.sweeper
    sweeper._asked, sweeper._begun, sweeper._calm = 1, 1, 0
    with pytest.raises(TimeoutError):
        mine.drain(0.01)

    assert sweeper._asked == 1, "asked anew, a sweep longer than the wait would never do"


def test_an_error_of_our_own_counts_as_an_attempt(make, monkeypatch):
    def broken(*arguments, **values):
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(sender_threads, "deliver", broken)
    mine = make()
    commit(mine, save(mine))
    eventually(lambda: Delivery.objects.get().attempts == 1)

    assert Delivery.objects.get().attempt_set.earliest("id").error_class == "internal"
