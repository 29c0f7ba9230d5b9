"""The bookkeeper's work step by step, with a hand that the test fills; no thread but where told."""

import threading
from dataclasses import replace

import pytest
from django.db import DatabaseError, OperationalError, connection, connections
from django.db.backends.signals import connection_created
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch import claims, databases, lanes, loops, records
from signal_dispatch.bookkeeping import Bookkeeper
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.hand import (
    BURST_SECONDS,
    CONTENDED_SECONDS,
    FLUSH_COUNT,
    FLUSH_SECONDS,
    LONG_BURST,
    LOOP_SECONDS,
    READ_COUNT,
    READ_SECONDS,
    Hand,
    Settled,
)
from signal_dispatch.intake import RETURN_SECONDS
from signal_dispatch.jobs import Job
from signal_dispatch.models import Attempt, Delivery, State
from signal_dispatch.renewing import HINT_SECONDS
from signal_dispatch.scopes import Scope
from signal_dispatch.settling import Settlement
from tests.deliveries import delivery
from tests.waiting import eventually

BATCH = 4
SCOPE = Scope("", frozenset({"crm"}), frozenset({("shop.Told", "shop.order")}))


class NoConnections:
    """Stands for the thread's connections: a step would close that of the test."""

    def all(self, **kwargs):
        return []

    def close_all(self):
        pass


class Desk:
    """A bookkeeper, its hand, and a clock for both."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        for module in ("bookkeeping", "intake", "sweeping", "renewing", "hand", "queueing", "jobs"):
            monkeypatch.setattr(f"signal_dispatch.{module}.monotonic", lambda: self.now)
        self.hand = Hand(10, 10**6, watching=False)
        self.hand.took = 0.001
        self.refusing = False
        self.keeper = Bookkeeper(
            self.hand, lambda: SCOPE, self.submit, batch=BATCH, sweep_seconds=15, using=["default"]
        )
        self.keeper.sweeper.expect(-1)

    def submit(self, job):
        return not self.refusing and self.hand.queue.put(job)

    def save(self, times):
        for _ in range(times):
            self.hand.note_save()

    def step(self):
        self.keeper._step()

    def rest(self):
        """Be where nothing is due."""
        self.step()
        self.keeper.sweeper._next = self.now + 900
        self.keeper.renewer.next_at = self.now + 900

    @property
    def wait(self):
        return self.keeper._next_at() - self.now

    @property
    def ready(self):
        return [job.delivery for job in self.hand.queue.ready()]

    def job(self, made, age=0.0):
        return Job(made, "default", self.now - age)

    def settle(self, made, state=State.DELIVERED, **values):
        tried = Attempt(delivery=made, number=1, started_at=timezone.now(), outcome="delivered")
        done = Settlement(made, state, tried, **values)
        self.hand.settled.append(Settled(self.job(made), done, self.now))


@pytest.fixture
def desk(monkeypatch):
    monkeypatch.setattr(loops, "connections", NoConnections())
    return Desk(monkeypatch)


def held(**values):
    defaults = {"held_by": claims.holder(), "epoch": 1, "available_at": DatabaseNow(60)}
    return delivery(**defaults | values)


def behind(lane):
    return delivery(lane=lane, state="waiting", available_at=None)


def row(made):
    return Delivery.objects.get(pk=made.pk)


def seconds_left(made):
    return (row(made).available_at - timezone.now()).total_seconds()


# Recording.


@pytest.mark.django_db
def test_what_was_settled_is_recorded_in_one_batch(desk):
    desk.rest()
    for _ in range(5):
        desk.settle(held())
    with CaptureQueriesContext(connection) as queries:
        desk.step()

    verbs = [q["sql"].split()[0] for q in queries]
    assert (verbs.count("UPDATE"), verbs.count("INSERT"), verbs.count("SELECT")) == (1, 1, 0)
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
    assert desk.hand.is_empty


@pytest.mark.django_db
def test_answers_wait_a_little_for_others_unless_they_are_many_or_alone(desk):
    desk.rest()
    desk.hand.queue.put(desk.job(held()))
    desk.settle(held())
    assert desk.wait == pytest.approx(FLUSH_SECONDS)
    desk.hand.queue.clear()
    assert desk.wait <= 0, "nothing else is coming"
    desk.hand.queue.put(desk.job(held()))
    desk.hand.settled *= FLUSH_COUNT
    assert desk.wait <= 0


@pytest.mark.django_db
def test_in_a_burst_of_saves_answers_wait_for_the_next_ones(desk):
    desk.rest()
    desk.settle(held())
    desk.save(LONG_BURST - 1)
    assert desk.wait <= 0, "a few saves are no long burst"
    desk.save(1)
    assert desk.wait == pytest.approx(BURST_SECONDS), "somebody may save again in a moment"
    desk.step()
    assert desk.hand.unrecorded == 1, "whatever else there was to do"
    while desk.now < desk.hand.settled[0].since + FLUSH_SECONDS:
        desk.now += BURST_SECONDS / 2
        desk.save(1)
    assert desk.wait <= 0, "it has waited for long enough"
    desk.step()
    assert desk.hand.unrecorded == 0


@pytest.mark.django_db
def test_an_answer_that_something_waits_for_is_recorded_at_once(desk):
    desk.rest()
    desk.hand.queue.put(desk.job(held()))
    desk.hand.note_waiting("default", "lane")
    desk.hand.to_look.clear()
    desk.settle(held(lane="lane"))
    assert desk.wait <= 0
    desk.now += CONTENDED_SECONDS
    desk.hand.settled[0] = replace(desk.hand.settled[0], since=desk.now)
    assert desk.wait == pytest.approx(FLUSH_SECONDS), "nothing waited there for long"


@pytest.mark.django_db
def test_lanes_that_were_contended_long_ago_are_forgotten(desk):
    for number in range(500):
        desk.hand.note_waiting("default", f"lane-{number}")
        desk.now += 0.05

    assert len(desk.hand.contended) < 400


@pytest.mark.django_db
def test_the_next_of_a_lane_is_taken_in_the_same_step(desk):
    first, second = held(lane="a"), behind("a")
    desk.settle(first)
    desk.step()

    assert desk.ready == [second]
    assert (row(second).held_by, row(second).epoch) == (claims.holder(), 1)


@pytest.mark.django_db
def test_the_next_of_a_lane_follows_what_a_sender_recorded_itself(desk):
    first, second = held(lane="a"), behind("a")
    Delivery.objects.filter(pk=first.pk).update(state="delivered", available_at=None)
    desk.hand.settled.append(
        Settled(desk.job(first), Settlement(first, State.DELIVERED, recorded=True))
    )
    desk.step()

    assert desk.ready == [second]
    assert not Attempt.objects.exists()


@pytest.mark.django_db
def test_a_retry_holds_its_lane_and_brings_the_sweep_forward(desk):
    desk.rest()
    first, second = held(lane="a"), behind("a")
    desk.settle(first, State.PENDING, delay=3)
    desk.step()

    assert (row(first).state, row(second).state) == ("pending", "waiting")
    assert desk.wait == pytest.approx(3.01)


@pytest.mark.django_db
def test_the_next_of_a_lane_follows_a_mark_whose_commit_was_not_heard_of(desk):
    first, second = held(lane="a"), behind("a")
    Delivery.objects.filter(pk=first.pk).update(state="delivered", available_at=None)
    desk.settle(first, State.PENDING, delay=3)
    desk.step()

    assert row(first).state == "delivered"
    assert desk.ready == [second]


@pytest.mark.django_db
def test_answers_survive_a_database_that_is_away(desk, monkeypatch):
    desk.settle(held())
    with monkeypatch.context() as patch:
        patch.setattr(records, "settle_all", refuse)
        with pytest.raises(OperationalError):
            desk.step()
    assert (desk.hand.unrecorded, desk.hand.recording) == (1, 0)
    desk.step()

    assert Delivery.objects.get().state == "delivered"
    assert Attempt.objects.count() == 1


@pytest.mark.django_db
@pytest.mark.parametrize(
    "part",
    [
        "recorder.record",
        "accountant.account",
        "gatekeeper.refresh",
        "intake.read_back",
        "intake.look_again",
        "renewer.renew",
        "renewer.check_watched",
    ],
)
def test_what_one_outbox_refuses_keeps_no_other_waiting(desk, monkeypatch, part):
    def refuse(*arguments):
        raise OperationalError("another database is away")

    owner, _, name = part.partition(".")
    monkeypatch.setattr(getattr(desk.keeper, owner), name, refuse)
    desk.settle(held())
    desk.hand.to_read["default", 10**9] = desk.now
    made = delivery()
    desk.keeper.renewer.next_at = desk.now
    with pytest.raises(OperationalError, match="another database"):
        desk.step()

    assert desk.ready == [made]


@pytest.mark.django_db
def test_a_lane_is_not_forgotten_when_the_database_goes_away_after_the_mark(desk, monkeypatch):
    first, second = held(lane="a"), behind("a")
    desk.settle(first)
    with monkeypatch.context() as patch:
        patch.setattr(lanes, "release", refuse)
        with pytest.raises(OperationalError):
            desk.step()
    assert row(first).state == "delivered"
    assert not desk.hand.is_empty
    desk.step()

    assert desk.ready == [second]


def refuse(*arguments):
    raise OperationalError("gone away")


# Looking again.


@pytest.mark.django_db
def test_who_asks_for_a_look_during_a_look_is_not_forgotten(desk, monkeypatch):
    desk.rest()
    release, late = lanes.release, []

    def release_then_one_more_commits(*arguments):
        released = release(*arguments)
        if not late:
            late.append(behind("a"))
            desk.hand.to_look.add(("default", "a"))
        return released

    monkeypatch.setattr(lanes, "release", release_then_one_more_commits)
    desk.hand.to_look.add(("default", "a"))
    desk.step()
    assert desk.ready == []
    assert desk.wait == 0
    desk.step()

    assert desk.ready == late
    assert desk.hand.to_look == set()


@pytest.mark.django_db
def test_a_look_that_failed_is_made_again(desk, monkeypatch):
    desk.rest()
    desk.hand.to_look.add(("default", "a"))
    with monkeypatch.context() as patch:
        patch.setattr(lanes, "release", refuse)
        with pytest.raises(OperationalError):
            desk.step()

    assert desk.hand.to_look == {("default", "a")}
    assert not desk.hand.looking


# Reading back.


@pytest.mark.django_db
def test_what_was_committed_is_read_back_and_what_was_not_is_not(desk):
    kept, lost = held(path="as committed"), held(held_by="you")
    keys = [kept.pk, lost.pk, 10**9]
    desk.hand.note_committed({("default", pk): desk.now - 1 for pk in keys})
    assert desk.wait <= 0
    desk.step()

    (job,) = desk.hand.queue.ready()
    assert (job.delivery.path, job.since) == ("as committed", desk.now - 1)
    assert desk.hand.to_read == {}


def go_on(desk, seconds, *, apart):
    """Save again and again for so long."""
    until = desk.now + seconds
    while desk.now < until:
        desk.now = min(until, desk.now + apart)
        desk.save(1)


@pytest.mark.django_db
def test_what_a_loop_commits_is_read_back_after_it(desk):
    desk.rest()
    desk.save(LONG_BURST)
    desk.hand.note_committed({("default", held().pk): desk.now for _ in range(READ_COUNT)})
    go_on(desk, 1, apart=LOOP_SECONDS / 2)
    assert desk.wait == pytest.approx(LOOP_SECONDS)
    desk.step()
    assert not desk.ready, "whatever else there was to do"
    desk.now += LOOP_SECONDS
    assert desk.wait <= 0
    desk.step()

    assert len(desk.ready) == BATCH
    assert len(desk.hand.to_read) == READ_COUNT - BATCH


@pytest.mark.django_db
def test_what_a_long_burst_commits_is_read_back_together(desk):
    desk.rest()
    desk.save(LONG_BURST)
    go_on(desk, 1, apart=BURST_SECONDS / 2)
    desk.hand.note_committed({("default", pk): desk.now for pk in range(READ_COUNT - 1)})
    assert desk.wait == pytest.approx(BURST_SECONDS)
    go_on(desk, READ_SECONDS - BURST_SECONDS / 2, apart=BURST_SECONDS / 2)
    assert desk.wait == pytest.approx(BURST_SECONDS / 2), "the first has waited for long enough"
    desk.hand.note_committed({("default", READ_COUNT): desk.now})
    assert desk.wait <= 0, "they are many"
    desk.hand.to_read.popitem()
    desk.now += BURST_SECONDS / 2
    assert desk.wait <= 0


@pytest.mark.django_db
def test_it_is_woken_by_what_is_due_sooner_alone(desk, monkeypatch):
    desk.rest()
    woken = []
    monkeypatch.setattr(desk.hand.work, "notify", lambda: woken.append(True))
    desk.hand.queue.put(desk.job(held()))
    desk.keeper._next_at()
    desk.settle(held())
    desk.keeper.note_settled()
    assert woken.pop(), "when that is to be recorded it does not know yet"
    desk.keeper._next_at()
    for _ in range(FLUSH_COUNT - 2):
        desk.settle(held())
        desk.keeper.note_settled()
    assert not woken, "it knows"
    desk.settle(held())
    desk.keeper.note_settled()
    assert woken.pop(), "now it is to be recorded at once"


@pytest.mark.django_db
def test_it_is_woken_for_more_that_is_due_as_soon_as_there_is_room(desk, monkeypatch):
    desk.rest()
    woken = []
    monkeypatch.setattr(desk.hand.work, "notify", lambda: woken.append(True))
    desk.keeper.sweeper._more_is_due = True
    for _ in range(desk.keeper.sweeper._appetite.enough):
        desk.hand.queue.put(desk.job(held()))
    desk.keeper._next_at()
    desk.keeper.note_settled()
    assert not woken
    desk.hand.queue.take()
    desk.keeper.note_settled()
    assert woken


@pytest.mark.django_db
def test_a_lease_wakes_it_where_it_would_sleep_for_longer_than_it_looks_after_leases(
    desk, monkeypatch
):
    desk.rest()
    woken = []
    monkeypatch.setattr(desk.hand.work, "notify", lambda: woken.append(True))
    desk.keeper._next_at()
    desk.keeper.renewer.next_at = desk.now - 40
    desk.keeper.note_lease()
    assert woken.pop(), "nothing was leased until now"
    desk.hand.watched["default", 1] = desk.now
    desk.keeper.renewer.next_at = desk.now + 5
    desk.keeper._next_at()
    desk.keeper.note_lease()
    assert not woken


@pytest.mark.django_db
def test_what_finds_no_room_is_handed_back(desk):
    made = held()
    desk.rest()
    desk.refusing = True
    desk.hand.to_read["default", made.pk] = desk.now
    desk.step()

    assert row(made).held_by == ""
    assert seconds_left(made) < 5
    assert desk.wait == RETURN_SECONDS


@pytest.mark.django_db
def test_what_was_taken_is_not_read_back_again_after_an_error(desk, monkeypatch):
    first, second = held(), held()
    desk.hand.to_read = {("default", d.pk): desk.now for d in (first, second)}
    monkeypatch.setattr(
        desk.keeper.intake, "_submit", lambda job: job.delivery == first and put(job)
    )
    put = desk.hand.queue.put
    with monkeypatch.context() as patch:
        patch.setattr(claims, "hand_back", refuse)
        with pytest.raises(OperationalError):
            desk.step()
    monkeypatch.setattr(desk.keeper.intake, "_submit", put)
    desk.step()

    assert desk.ready == [first, second]


# Leases.


@pytest.mark.django_db
def test_old_leases_are_renewed_wherever_the_job_is(desk):
    jobs = [desk.job(held(available_at=DatabaseNow(5)), age=30) for _ in range(3)]
    young = desk.job(held(available_at=DatabaseNow(5)), age=10)
    for job in (jobs[0], jobs[1], young):
        desk.hand.queue.put(job)
    desk.hand.queue.take()
    done = Settlement(jobs[2].delivery, State.DELIVERED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.keeper.recorder, "record", lambda: None)
        desk.hand.settled.append(Settled(jobs[2], done, desk.now))
        desk.step()

    assert [round(seconds_left(j.delivery), -1) for j in (*jobs, young)] == [60, 60, 60, 0]
    assert [j.age for j in (*jobs, young)] == [0, 0, 0, 10]
    assert 0 < desk.wait <= HINT_SECONDS


@pytest.mark.django_db
def test_a_job_whose_lease_is_somebody_elses_is_dropped(desk):
    lost, kept = held(held_by="you"), held()
    for made in (lost, kept):
        desk.hand.queue.put(desk.job(made, age=30))
    desk.step()

    assert desk.ready == [kept]


@pytest.mark.django_db
def test_a_job_that_came_too_late_to_begin_is_renewed_at_once(desk):
    desk.rest()
    kept, lost = held(), held(held_by="you")
    desk.hand.stale = [desk.job(kept, age=50), desk.job(lost, age=50)]
    assert desk.wait == 0
    desk.step()

    (job,) = desk.hand.queue.ready()
    assert (job.delivery, job.age) == (kept, 0)
    assert desk.hand.stale == []
    assert desk.wait > 0, "it must not spin"


@pytest.mark.django_db
def test_a_renewal_that_fails_loses_no_job(desk, monkeypatch):
    made = held()
    desk.hand.stale = [desk.job(made, age=50)]
    with monkeypatch.context() as patch:
        patch.setattr(claims, "renew", refuse)
        with pytest.raises(OperationalError):
            desk.step()
    desk.step()

    assert desk.ready == [made]


# Hints that never came.


@pytest.mark.django_db
def test_a_lost_hint_costs_seconds_not_a_lease(desk):
    made = held()
    desk.hand.watched["default", made.pk] = desk.now
    desk.step()
    assert desk.ready == []
    desk.now += HINT_SECONDS + 0.1
    desk.step()

    assert desk.ready == [made]
    assert desk.hand.watched == {}


@pytest.mark.django_db
def test_what_is_in_hand_is_not_taken_again_for_a_number_that_was_given_back(desk):
    made = held()
    desk.hand.queue.put(Job(made, "default", desk.now))
    desk.hand.watched["default", made.pk] = desk.now - HINT_SECONDS - 1
    desk.now += HINT_SECONDS + 1
    desk.step()

    assert desk.ready == [made]
    assert desk.hand.watched == {}


@pytest.mark.django_db
def test_an_open_transaction_is_watched_until_the_lease_would_be_over(desk, settings):
    settings.SIGNAL_DISPATCH_LEASE_SECONDS = 60
    desk.hand.watched["default", 10**9] = desk.now
    for _ in range(11):
        desk.now += HINT_SECONDS + 0.1
        desk.step()
        assert desk.hand.watched
    desk.now += HINT_SECONDS
    desk.step()

    assert desk.hand.watched == {}


@pytest.mark.django_db
def test_a_hint_that_comes_during_the_look_is_not_answered_twice(desk, monkeypatch):
    made, read_back = held(), claims.read_back
    desk.hand.watched["default", made.pk] = desk.now - HINT_SECONDS - 1

    def hint_in_between(*arguments):
        found = read_back(*arguments)
        assert desk.hand.watched.pop(("default", made.pk))  # as Worker.committed() does
        return found

    monkeypatch.setattr(claims, "read_back", hint_in_between)
    desk.step()

    assert desk.ready == []


# Ending.


@pytest.mark.django_db
def test_at_the_end_answers_are_recorded_and_the_rest_is_due_at_once(desk):
    done, ready, late, to_read, watched = (held(lane=n) for n in ("a", "", "", "", ""))
    next_one, looked, locked = behind("a"), behind("b"), behind("c")
    desk.settle(done)
    desk.hand.queue.put(desk.job(ready))
    desk.hand.stale.append(desk.job(late))
    desk.hand.to_read["default", to_read.pk] = desk.now
    desk.hand.watched["default", watched.pk] = desk.now
    desk.hand.to_look.add(("default", "b"))
    desk.hand.blocked.add(("default", "c"))
    desk.hand.closing = desk.refusing = True
    desk.keeper.run()

    assert row(done).state == "delivered"
    for made in (ready, late, to_read, watched, next_one, looked, locked):
        assert (row(made).state, row(made).held_by) == ("pending", "")
        assert seconds_left(made) < 5
    assert desk.hand.is_empty


@pytest.mark.django_db
def test_what_is_not_begun_is_given_to_others_while_calls_are_in_flight(desk, monkeypatch):
    flying, left = held(), held()
    for made in (flying, left):
        desk.hand.queue.put(desk.job(made))
    desk.hand.queue.take()
    desk.rest()
    assert desk.wait > 0
    assert row(left).held_by

    desk.hand.stopping = True
    assert desk.wait == 0
    with monkeypatch.context() as patch:
        patch.setattr(claims, "hand_back", refuse)
        with pytest.raises(OperationalError):
            desk.step()
    assert desk.ready == [left], "kept for when the database is back"
    desk.step()
    assert (row(left).held_by, row(flying).held_by) == ("", claims.holder())
    assert seconds_left(left) < 5
    assert desk.ready == []


@pytest.mark.django_db
def test_a_call_in_flight_at_the_end_stays_leased(desk):
    made = held()
    desk.hand.queue.put(desk.job(made))
    desk.hand.queue.take()
    desk.hand.closing = True
    desk.keeper.run()

    assert row(made).held_by == claims.holder()
    assert seconds_left(made) > 50


@pytest.mark.django_db
@pytest.mark.parametrize("known_as", ["watched", "to_read", "stale", "ready"])
def test_what_this_process_claimed_anew_is_not_given_back_for_an_earlier_claim(desk, known_as):
    anew = held(epoch=2)
    desk.hand.queue.put(desk.job(anew))
    desk.hand.queue.take()
    earlier = desk.job(Delivery.objects.get(pk=anew.pk))
    earlier.delivery.epoch = 1
    if known_as in ("watched", "to_read"):
        getattr(desk.hand, known_as)["default", anew.pk] = desk.now
    elif known_as == "stale":
        desk.hand.stale.append(earlier)
    else:
        desk.hand.queue.put(earlier)
    desk.hand.closing = True
    desk.keeper.run()

    assert row(anew).held_by == claims.holder(), "its call is in flight"
    assert seconds_left(anew) > 50


@pytest.mark.django_db
def test_nor_for_one_that_finds_no_room(desk):
    anew = held(epoch=2)
    earlier = desk.job(Delivery.objects.get(pk=anew.pk))
    earlier.delivery.epoch = 1
    desk.refusing = True
    desk.keeper.intake.submit_or_return(earlier)

    assert row(anew).held_by == claims.holder()


@pytest.mark.django_db
def test_a_database_that_is_away_at_the_end_is_told_and_no_more(desk, monkeypatch, caplog):
    desk.hand.queue.put(desk.job(held()))
    desk.hand.closing = True
    monkeypatch.setattr(claims, "hand_back", refuse)
    desk.keeper.run()

    assert "leases will run out" in caplog.text


# As a thread.


@pytest.fixture
def running(monkeypatch):
    """Run a bookkeeper in a thread, with hardly any pause after an error."""
    monkeypatch.setattr(loops, "MAX_PAUSE_SECONDS", 0.02)
    hand, taken = Hand(10, 10**6), []
    keeper = Bookkeeper(
        hand, lambda: SCOPE, lambda job: not taken.append(job), batch=4, sweep_seconds=15
    )
    keeper.hand, keeper.taken = hand, taken
    thread = threading.Thread(target=keeper.run)

    def start():
        thread.start()
        return keeper

    yield start
    with hand.lock:
        hand.stopping = hand.closing = True
        hand.work.notify_all()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("error", [DatabaseError("gone away"), ZeroDivisionError("a bug")])
def test_no_error_ends_it(running, monkeypatch, caplog, error):
    look, errors = claims.seconds_until_due, [error, error, error]

    def failing(*arguments, **options):
        if errors:
            raise errors.pop()
        return look(*arguments, **options)

    monkeypatch.setattr(claims, "seconds_until_due", failing)
    made = delivery()
    keeper = running()

    assert eventually(lambda: [job.delivery for job in keeper.taken]) == [made]
    assert f"can't be reached ({type(error).__name__}" in caplog.text


@pytest.fixture
def opened(monkeypatch):
    """Note which threads opened a connection."""
    threads = []

    def note(**kwargs):
        threads.append(threading.current_thread())

    connection_created.connect(note)
    yield lambda: len([t for t in threads if t is not threading.main_thread()])
    connection_created.disconnect(note)


on_a_server_or_file = pytest.mark.skipif(
    connection.settings_dict["NAME"] == ":memory:", reason="It has one connection, for ever."
)


@on_a_server_or_file
@pytest.mark.django_db(transaction=True)
def test_after_an_error_it_takes_another_connection(running, monkeypatch, opened):
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 600)
    look, errors = claims.seconds_until_due, [OperationalError("gone away")]

    def fail_once(*arguments, **named):
        found = look(*arguments, **named)
        if errors:
            raise errors.pop()
        return found

    monkeypatch.setattr(claims, "seconds_until_due", fail_once)
    made = delivery()
    keeper = running()

    assert eventually(lambda: [job.delivery for job in keeper.taken]) == [made]
    assert opened() == 2


@on_a_server_or_file
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("age", "judged_each", "another"), [(0, 0, True), (600, 0, False), (0, 600, False)]
)
def test_its_connection_is_judged_by_the_settings_from_time_to_time(
    running, monkeypatch, opened, age, judged_each, another
):
    """By default it would be another one for each batch."""
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", age)
    monkeypatch.setattr(databases, "JUDGE_SECONDS", judged_each)
    monkeypatch.setattr(loops, "KEEP_SECONDS", 600)
    delivery()
    keeper = running()
    eventually(lambda: len(keeper.taken) == 1)
    before = opened()
    delivery()
    with keeper.hand.lock:
        keeper.sweeper.ask()
    eventually(lambda: len(keeper.taken) == 2)

    assert (opened() > before) == another


@pytest.mark.django_db
def test_after_a_pause_it_looks_again_for_what_it_was_asked_for(desk, monkeypatch):
    monkeypatch.setattr(desk.hand.work, "wait_for", lambda until, pause: None)
    desk.rest()
    desk.keeper._back_off(OperationalError("gone away"), 3)

    assert desk.wait == 2


@pytest.mark.django_db(transaction=True)
def test_the_connection_is_closed_when_there_is_nothing_to_do(running, monkeypatch):
    monkeypatch.setattr(loops, "KEEP_SECONDS", 0.1)
    seen, is_connected = [], loops._is_connected
    monkeypatch.setattr(loops, "_is_connected", lambda: seen.append(is_connected()) or seen[-1])
    delivery()
    keeper = running()
    eventually(lambda: keeper.taken)

    eventually(lambda: True in seen and seen[-1] is False)


# Pruning.


@pytest.mark.django_db
def test_it_prunes_after_a_sweep_and_goes_on_when_the_pruner_says(desk, monkeypatch):
    pruned = []
    monkeypatch.setattr(desk.keeper.pruner, "prune", lambda: pruned.append(desk.now))
    desk.rest()
    assert pruned == [1000.0]
    desk.step()
    assert pruned == [1000.0], "no sweep, no pruning"

    desk.keeper.pruner.next_at = desk.now + 3
    assert desk.wait == 3
    desk.now += 3
    desk.step()
    assert pruned == [1000.0, 1003.0]


def test_one_that_ends_does_not_wait_for_the_pruner(desk):
    desk.keeper.pruner.next_at = desk.now
    desk.keeper.sweeper._next = desk.keeper.renewer.next_at = desk.now + 900
    assert desk.wait == 0
    desk.hand.finishing = True
    assert desk.wait > 0
