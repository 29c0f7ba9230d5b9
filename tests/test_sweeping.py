"""What a sweep takes and what it leaves, and when the next one comes."""

from dataclasses import replace

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from signal_dispatch import claims, health, naps, outboxes, sweeping
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.endpoints import endpoints
from signal_dispatch.gates import Gatekeeper
from signal_dispatch.hand import Hand
from signal_dispatch.jobs import Job
from signal_dispatch.models import Delivery, EndpointState
from signal_dispatch.outboxes import Outboxes
from signal_dispatch.scopes import Scope
from signal_dispatch.sweeping import Sweeper
from tests.deliveries import delivery

SCOPE = Scope("", frozenset({"crm"}), frozenset({("shop.Told", "shop.order")}))


class Sweep:
    """A sweeper with a clock that stands still, and what it took."""

    def __init__(self, monkeypatch, **values):
        self.now = 1000.0
        for module in (sweeping, outboxes, health):
            monkeypatch.setattr(module, "monotonic", lambda: self.now)
        monkeypatch.setattr(naps, "share", lambda: 0.5)
        self.hand = Hand(values.pop("queue_size", 10), 10**6)
        self.taken = []
        defaults = {"batch": 4, "sweep_seconds": 15.0, "using": ["default"]}
        self.sweeper = Sweeper(self.hand, lambda: SCOPE, Gatekeeper(self.hand), **defaults | values)

    def take(self, made, using, since, *, probe=False):
        self.taken.append(made)
        self.hand.queue.put(Job(made, using, since, probe))

    def __call__(self):
        self.sweeper.sweep(self.take)
        return self.taken

    @property
    def wait(self):
        return self.sweeper.next_at(self.now) - self.now


@pytest.fixture
def sweep(monkeypatch):
    return Sweep(monkeypatch)


def sql_of(work):
    with CaptureQueriesContext(connection) as queries:
        work()
    return [q["sql"] for q in queries if q["sql"].startswith(("SELECT", "UPDATE", "WITH"))]


@pytest.mark.django_db
def test_what_a_dead_process_held_is_taken_once_its_lease_is_over(sweep):
    left = delivery(held_by="dead", epoch=1, available_at=DatabaseNow(-1))
    delivery(held_by="alive", epoch=1, available_at=DatabaseNow(30))

    assert sweep() == [left]
    assert (left.pk, "dead") not in Delivery.objects.values_list("pk", "held_by")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "values", [{"environment": "staging"}, {"dispatch": "shop.Newer"}, {"endpoint": "other"}]
)
def test_what_is_not_ours_is_left_alone(sweep, values):
    delivery(**values)

    assert sweep() == []
    assert sweep.sweeper.found_nothing


@pytest.mark.django_db
def test_an_empty_outbox_costs_one_query_a_minute_and_one_for_families(sweep):
    assert len(sql_of(sweep)) == 1
    sweep.sweeper._scope = lambda: replace(SCOPE, families=frozenset({"tenant"}))
    assert len(sql_of(sweep)) == 2
    assert sweep.wait == 66, "60 s, and up to a fifth more: never two in a minute"


@pytest.mark.django_db
@pytest.mark.parametrize(("due", "wait"), [(0.5, 0.5), (10, 9), (500, 13.5)])
def test_the_next_sweep_is_when_something_is_due_or_soon(sweep, due, wait):
    delivery(available_at=DatabaseNow(due))
    sweep()

    assert sweep.wait == pytest.approx(wait, abs=0.4)
    assert sweep.sweeper.found_nothing


@pytest.mark.django_db
def test_a_look_that_left_out_a_crowded_endpoint_has_not_found_that_nothing_is_due(sweep):
    for _ in range(6):
        delivery()
    assert len(sweep()) == 4
    with sweep.hand.lock:
        sweep.sweeper.ask()
    sweep()  # enough is in hand: it is not asked what else there is
    assert not sweep.sweeper.found_nothing, "whoever drains would leave two"
    sweep.hand.queue.clear()
    assert len(sweep()) == 6
    sweep.hand.queue.clear()
    sweep()
    assert sweep.sweeper.found_nothing


@pytest.mark.django_db
def test_a_call_that_hangs_makes_it_take_no_more_of_either_kind(monkeypatch):
    sweep = Sweep(monkeypatch, queue_size=1000, batch=8)
    for number in range(120):
        delivery(retried=bool(number % 2))
    sweep()
    assert sweep.hand.queue.take() is not None
    for _ in range(8):  # at once, as after a find
        sweep()

    assert len(sweep.taken) <= 2 * (8 // 2 + 8), "of each kind a batch, and half of one"


@pytest.mark.django_db
def test_more_idle_lanes_than_a_look_takes_are_not_left_for_five_minutes(sweep):
    for number in range(6):
        delivery(state="waiting", available_at=None, lane=f"lane-{number}")
    sweep.now += sweeping.REPAIR_SECONDS
    sweep()
    assert len(sweep.hand.to_look) == 4
    sweep.hand.to_look.clear()
    Delivery.objects.filter(lane__in=["lane-0", "lane-1"]).update(state="cancelled")
    sweep()
    assert sweep.hand.to_look
    Delivery.objects.update(state="cancelled")
    sweep()
    sweep.hand.to_look.clear()
    delivery(state="waiting", available_at=None, lane="later")
    sweep()
    assert not sweep.hand.to_look, "that was all: the next repair is in five minutes"


@pytest.mark.django_db
def test_a_retry_brings_the_next_sweep_forward(sweep):
    sweep()
    sweep.sweeper.expect(3)
    sweep.sweeper.expect(7)

    assert sweep.wait == 3


@pytest.mark.django_db
def test_after_a_find_it_looks_again_at_once_and_then_rests(sweep):
    delivery()
    sweep()
    assert sweep.wait == pytest.approx(naps.MIN_SLEEP_SECONDS)
    sweep()
    assert sweep.wait > 5
    assert len(sweep.taken) == 1


@pytest.mark.django_db
def test_only_so_much_is_taken_as_there_is_room_for(monkeypatch):
    sweep = Sweep(monkeypatch, queue_size=3)
    made = [delivery() for _ in range(5)]

    assert sweep() == made[:3]
    assert sweep() == made[:3], "no room, so the rest is left for others"
    assert Delivery.objects.filter(held_by="").count() == 2
    sweep.sweeper.expect(50)
    sweep.hand.queue.clear()
    assert sweep.wait == 0, "room again: more was due"
    assert sweep() == made


@pytest.mark.django_db
def test_a_batch_that_was_just_all_does_not_keep_it_looking(sweep):
    for _ in range(4):
        delivery()
    sweep()
    sweep.hand.queue.clear()
    assert sweep.wait == 0, "it can't know that this was all"
    sweep()

    assert sweep.wait > 5
    assert len(sweep.taken) == 4


@pytest.mark.django_db
def test_asking_during_a_sweep_is_not_lost(sweep, monkeypatch):
    looked = claims.seconds_until_due

    def ask_after_the_look(using, scope, **options):
        found = looked(using, scope, **options)
        monkeypatch.setattr(claims, "seconds_until_due", looked)
        delivery()
        with sweep.hand.lock:
            sweep.sweeper.ask()
        return found

    monkeypatch.setattr(claims, "seconds_until_due", ask_after_the_look)
    sweep()
    assert sweep.taken == []
    assert sweep.wait == 0
    assert not sweep.sweeper.found_nothing, "that sweep looked before it was asked"

    assert len(sweep()) == 1
    sweep()
    assert sweep.sweeper.found_nothing


@pytest.mark.django_db
def test_nothing_is_taken_any_more_once_it_stops(sweep):
    sweep.hand.stopping = True
    with sweep.hand.lock:
        sweep.sweeper.ask()

    assert sweep.wait > 5


@pytest.mark.django_db
def test_lanes_that_wait_behind_nothing_are_looked_for_every_five_minutes(sweep):
    delivery(lane="lost", state="waiting", available_at=None)
    sweep()
    assert sweep.hand.to_look == set()
    sweep.now += sweeping.REPAIR_SECONDS
    sweep()
    assert sweep.hand.to_look == {("default", "lost")}
    sweep.hand.to_look.clear()
    sweep.now += 10
    sweep()
    assert sweep.hand.to_look == set()


@pytest.mark.django_db(transaction=True)
def test_a_database_without_the_table_is_left_out_and_told_once(sweep, monkeypatch, caplog):
    monkeypatch.setattr(Delivery._meta, "db_table", "never_migrated")
    sweep()
    sweep()

    assert caplog.text.count("The database 'default' has no outbox: run 'migrate'") == 1
    assert sweep.wait > 5


@pytest.mark.django_db
def test_a_database_that_the_test_forbids_is_nobodys_to_sweep(monkeypatch):
    sweep = Sweep(monkeypatch, using=["other", "default"])
    delivery()

    assert len(sweep()) == 1


@pytest.mark.django_db
def test_a_database_that_is_unwell_does_not_hide_the_others(monkeypatch, caplog):
    sweep = Sweep(monkeypatch, using=["other", "default"])
    made, look = delivery(), claims.seconds_until_due

    def refuse(using, scope, **options):
        if using == "other":
            raise OperationalError("gone away")
        return look(using, scope, **options)

    monkeypatch.setattr(claims, "seconds_until_due", refuse)
    monkeypatch.setattr(Outboxes, "_lacks_tables", lambda self, using: False)
    with sweep.hand.lock:
        sweep.sweeper.ask()
    assert sweep() == [made]
    assert sweep.sweeper.found_nothing is False
    sweep.now += 0.1
    sweep()
    assert sweep.sweeper.found_nothing, "the one that rests is not waited for"
    assert "'other' can't be reached" in caplog.text
    sweep.now += 1
    sweep()
    assert caplog.text.count("can't be reached") == 2, "and it is asked again later"


@pytest.mark.django_db
def test_a_database_that_takes_long_to_refuse_is_asked_seldom(monkeypatch, caplog):
    sweep = Sweep(monkeypatch, using=["default", "other"])
    look = claims.seconds_until_due

    def refuse(using, scope, **options):
        if using == "other":
            sweep.now += 12
            raise OperationalError("timeout expired")
        return look(using, scope, **options)

    monkeypatch.setattr(claims, "seconds_until_due", refuse)
    monkeypatch.setattr(Outboxes, "_lacks_tables", lambda self, using: False)
    sweep()
    sweep.now += 100
    sweep()
    assert caplog.text.count("can't be reached") == 1
    sweep.now += 21
    sweep()
    assert caplog.text.count("can't be reached") == 2


@pytest.mark.django_db
def test_where_no_database_can_be_reached_the_sweep_says_so(sweep, monkeypatch):
    def refuse(using, scope, **options):
        raise OperationalError("gone away")

    monkeypatch.setattr(claims, "seconds_until_due", refuse)
    monkeypatch.setattr(Outboxes, "_lacks_tables", lambda self, using: False)
    with pytest.raises(OperationalError):
        sweep()

    assert sweep.wait <= 0, "nothing was promised, so it looks again after the pause"


@pytest.mark.parametrize(("failures", "pause"), [(1, 0.5), (3, 2.0), (7, 10.0), (10**6, 10.0)])
def test_pauses_grow_to_a_bound_and_never_fail_themselves(failures, pause):
    assert outboxes.pause_after(failures, 10.0) == pause


@pytest.mark.django_db(databases=["default", "other"])
def test_every_outbox_is_swept_unless_some_are_named(monkeypatch):
    made = [delivery(), delivery("other")]

    assert Sweep(monkeypatch, using=["other"])() == [made[1]]
    assert Sweep(monkeypatch, using=())() == [made[0]]


@pytest.mark.django_db(databases=["default", "other"])
def test_a_replica_is_left_alone_unless_this_process_recorded_there(monkeypatch, settings):
    settings.DATABASE_ROUTERS = [OnlyToDefault()]
    made = [delivery(), delivery("other")]
    sweep = Sweep(monkeypatch, using=())

    assert sweep() == [made[0]]
    sweep.sweeper.meet("other")
    assert sweep() == made


class OnlyToDefault:
    def db_for_write(self, model, **hints):
        return "default"


@pytest.mark.django_db
def test_an_endpoint_with_enough_in_hand_leaves_the_table_to_others(sweep):
    sweep.sweeper._scope = lambda: Scope("", frozenset({"crm", "hubspot"}), SCOPE.dispatches)
    for number in range(2):  # half a batch
        sweep.hand.queue.put(Job(delivery(object_pk=number, available_at=None), "default", 0.0))
    delivery()
    other, retry = delivery(endpoint="hubspot"), delivery(retried=True)

    assert set(sweep()) == {other, retry}, "of the CRM there are enough first attempts"


@pytest.mark.django_db
def test_endpoints_of_a_family_are_taken_up_to_what_is_enough_in_hand(sweep, tenant):
    sweep.sweeper._scope = lambda: replace(SCOPE, families=frozenset({"tenant"}))
    for number in range(2):  # half a batch
        held = delivery(object_pk=number, endpoint="tenant:42", available_at=None)
        sweep.hand.queue.put(Job(held, "default", 0.0))
    tenant.come("42")
    endpoints.resolve("tenant:42")
    delivery(endpoint="tenant:42")
    other = delivery(endpoint="tenant:7")

    assert sweep() == [other]


@pytest.mark.django_db
def test_a_resolver_that_hangs_does_not_fill_the_hand_with_what_waits_for_it(sweep, tenant):
    sweep.sweeper._scope = lambda: replace(SCOPE, families=frozenset({"tenant"}))
    for number in range(2):
        held = delivery(endpoint=f"tenant:{number}", available_at=None)
        sweep.hand.queue.put(Job(held, "default", 0.0))
    waits = delivery(endpoint="tenant:7")
    tenant.come("42")
    endpoints.resolve("tenant:42")
    for name in ("crm", "tenant:42"):
        delivery(endpoint=name)

    assert sorted(made.endpoint for made in sweep()) == ["crm", "tenant:42"]
    tenant.come("7")
    endpoints.resolve("tenant:7")
    assert sweep()[2:] == [waits]


@pytest.mark.django_db
def test_nothing_more_is_looked_for_once_it_finishes(sweep):
    sweep.hand.finishing = True

    assert sweep.wait > 5


@pytest.mark.django_db
def test_lanes_of_another_environment_are_left_alone(sweep):
    delivery(environment="production", lane="theirs", state="waiting", available_at=None)
    delivery(lane="ours", state="waiting", available_at=None)
    sweep.now += 400
    sweep()

    assert sweep.hand.to_look == {("default", "ours")}


def open_breaker(seconds):
    EndpointState.objects.update_or_create(
        endpoint="crm", defaults={"open_until": DatabaseNow(seconds)}
    )


@pytest.mark.django_db
def test_of_an_endpoint_that_is_barred_nothing_is_taken_but_a_probe_when_it_may_be(sweep):
    made = [delivery(), delivery()]
    open_breaker(7)
    assert sweep() == []
    sweep()
    assert sweep.wait == pytest.approx(6.3, abs=0.8), "once known, it is not looked at"
    assert sweep.sweeper.found_nothing
    open_breaker(-1)
    assert sweep() == made[:1]
    assert [job.probe for job in sweep.hand.queue.ready()] == [True]
    assert not Delivery.objects.exclude(attempts=0).exists()


@pytest.mark.django_db
def test_no_other_probe_is_made_while_one_is_in_hand(sweep):
    """A rate, or an SDK that takes its time, may keep it there for longer than a pause."""
    for _ in range(3):
        delivery()
    open_breaker(-1)
    sweep()
    open_breaker(-1)
    assert len(sweep()) == 1, "ready"
    probe = sweep.hand.queue.take()
    assert len(sweep()) == 1, "in flight"
    sweep.hand.queue.done(probe)
    sweep.hand.stale.append(probe)
    assert len(sweep()) == 1, "its lease is renewed"
    sweep.hand.stale.clear()

    assert len(sweep()) == 2


@pytest.mark.django_db
def test_without_room_nobody_probes(monkeypatch):
    sweep = Sweep(monkeypatch, queue_size=1)
    sweep.hand.queue.put(Job(Delivery(endpoint="slack"), "default", 0.0))
    delivery()
    open_breaker(-1)

    assert sweep() == []
    assert EndpointState.objects.filter(open_until__lte=DatabaseNow()).exists(), "others may"
