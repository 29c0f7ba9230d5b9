"""How an outbox stands: what is counted, what it costs, and what is well."""

import re

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from signal_dispatch import bars, status
from signal_dispatch.barred import Barred
from signal_dispatch.breakers import Breaker
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.heartbeats import DEAD_SECONDS
from signal_dispatch.limits import Limits
from signal_dispatch.models import Delivery
from signal_dispatch.status import (
    Backlog,
    Holder,
    Status,
    Unresolved,
    counted,
    has_outbox,
    status_of,
)
from signal_dispatch.stranding import Stranded
from tests.deliveries import delivery
from tests.shop.models import Order
from tests.test_heartbeats import worker_process

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def finished(state, ago=1.0, **values):
    return delivery(state=state, available_at=None, finished_at=DatabaseNow(-ago), **values)


def held(by, seconds, **values):
    return delivery(held_by=by, epoch=1, available_at=DatabaseNow(seconds), **values)


def waiting(lane, **values):
    return delivery(state="waiting", lane=lane, available_at=None, **values)


def test_an_empty_outbox_stands_at_nothing():
    assert status_of("default") == Status(
        database="default",
        environment="",
        states=dict.fromkeys(["pending", "waiting", "delivered", "failed", "cancelled"], 0),
        failed_lately=0,
        backlogs=(),
        holders=(),
        stranded=(),
        workers=(),
    )


def test_states_are_counted_in_all_environments():
    for state, times in (("delivered", 3), ("failed", 2), ("cancelled", 1)):
        for _ in range(times):
            finished(state)
    delivery()
    held("me", 60)
    delivery(available_at=DatabaseNow(60))
    waiting("a", environment="production")

    assert status_of("default").states == {
        "pending": 3,
        "waiting": 1,
        "delivered": 3,
        "failed": 2,
        "cancelled": 1,
    }


def test_what_is_finished_is_not_counted_to_its_end(monkeypatch):
    monkeypatch.setattr(status, "COUNTED", 2)
    for state in ("delivered", "failed"):
        for _ in range(5):
            finished(state)
    for _ in range(5):
        delivery()
    stands = status_of("default")

    assert stands.states == {
        "pending": 5,
        "waiting": 0,
        "delivered": 3,
        "failed": 3,
        "cancelled": 0,
    }
    assert stands.failed_lately == 3
    assert [counted(2), counted(3)] == ["2", "more than 2"]


def test_a_backlog_says_what_is_due_held_scheduled_and_waiting(declare):
    declare(Order)
    for ago in (5, 90, 40):
        delivery(available_at=DatabaseNow(-ago))
    held("dead", -30)  # the lease is over, so it is due
    held("alive", 600)
    for _ in range(2):
        delivery(available_at=DatabaseNow(600))
    for lane in "aab":
        waiting(lane)
    waiting("c", endpoint="hubspot")
    finished("delivered")
    crm, hubspot = status_of("default").backlogs

    assert 85 < crm.oldest_due_seconds < 120
    age = crm.oldest_due_seconds
    assert crm == Backlog(
        "crm", due=4, oldest_due_seconds=age, scheduled=2, held=1, waiting=3, waiting_lanes=2
    )
    assert hubspot == Backlog("hubspot", 0, 0.0, 0, 0, waiting=1, waiting_lanes=1)
    assert status_of("default").oldest_due_seconds >= age


def test_holders_are_those_whose_lease_lasts():
    held("web:1", 900)
    held("web:1", 1500)
    held("web:2", 300)
    held("web:3", -1)
    held("web:4", 300, environment="production")
    one, two = status_of("default").holders

    assert one == Holder("web:1", 2, one.seconds_left)
    assert two == Holder("web:2", 1, two.seconds_left)
    assert 0 < two.seconds_left <= 300 < one.seconds_left <= 900


def test_what_nobody_here_may_take_is_named_with_the_reason(declare, settings):
    declare(Order)
    delivery()
    for _ in range(2):
        delivery(environment="production", endpoint="gone")
    waiting("a", environment="old")
    delivery(endpoint="erp")
    delivery(endpoint="erp", dispatch="shop.Gone")
    delivery(dispatch="shop.Gone", available_at=DatabaseNow(60))
    held("newer", 60, model="shop.customer")
    finished("failed", environment="production")
    expected = (
        Stranded("dispatch", "shop.Gone", 1),
        Stranded("endpoint", "erp", 2),
        Stranded("environment", "old", 1),
        Stranded("environment", "production", 2),
        Stranded("model", "shop.Told", 1, "shop.customer"),
    )
    assert status_of("default").stranded == expected

    settings.SIGNAL_DISPATCH_ENVIRONMENT = "production"
    stands = status_of("default")
    assert [(s.because, s.name, s.deliveries) for s in stands.stranded] == [
        ("endpoint", "gone", 2),
        ("environment", "", 5),
        ("environment", "old", 1),
    ]
    assert [(b.endpoint, b.due) for b in stands.backlogs] == [("gone", 2)]


def test_what_waits_for_an_endpoint_that_nobody_names_is_told_with_the_reason(tenant, declare):
    declare(Order, endpoint="tenant:42")
    for name, reason in (("tenant:42", "Gone."), ("tenant:42", "Gone."), ("tenant:7", "Broken.")):
        error_class = "gone" if reason == "Gone." else "resolver"
        later = {"available_at": DatabaseNow(500), "reason": reason, "error_class": error_class}
        delivery(endpoint=name, **later)
    delivery(endpoint="tenant:8", error_class="timeout", reason="Late.")
    delivery(endpoint="tenant:9", error_class="gone", environment="staging")
    delivery(endpoint="tenant")
    delivery(endpoint="family:7", error_class="gone", reason="It left the settings.")
    delivery(endpoint="tenant:42", error_class="gone", reason="Its class is gone.", dispatch="Old")
    finished("failed", endpoint="tenant:9", error_class="gone")

    found = status_of("default")
    assert found.unresolved == (
        Unresolved("tenant:42", "Gone.", 2),
        Unresolved("tenant:7", "Broken.", 1),
    )
    assert Stranded("endpoint", "tenant", 1) in found.stranded, "it needs a key"
    assert {s.name for s in found.stranded} == {"tenant", "family:7", "Old", "staging"}
    assert tenant.asked == []


def test_failed_lately_is_within_the_hour_and_of_this_environment():
    finished("failed", ago=1800)
    finished("failed", ago=3700)
    finished("failed", environment="production")
    finished("cancelled")

    assert status_of("default").failed_lately == 1


def test_what_another_delivery_made_good_is_not_failed_lately():
    anew = finished("delivered")
    finished("failed", replaced_by=anew)
    finished("failed")
    stands = status_of("default")

    assert (stands.failed_lately, stands.states["failed"]) == (1, 2)


def test_workers_live_as_long_as_they_beat():
    worker_process(name="a", seen_at=DatabaseNow(-1), endpoints=["crm"])
    worker_process(name="b", seen_at=DatabaseNow(-DEAD_SECONDS * 2))
    worker_process(name="c", environment="production")
    a, b = status_of("default").workers

    assert (a.name, a.alive, a.concurrency, a.endpoints) == ("a", True, 4, ("crm",))
    assert 0 < a.seen_seconds_ago < DEAD_SECONDS < b.seen_seconds_ago
    assert 99 < a.started_seconds_ago < 3600
    assert (b.name, b.alive) == ("b", False)


def test_each_database_stands_for_itself():
    delivery("other")

    assert status_of("default").states["pending"] == 0
    assert status_of("other").states["pending"] == 1
    assert [b.endpoint for b in status_of("other").backlogs] == ["crm"]


def test_the_number_of_statements_does_not_grow():
    with CaptureQueriesContext(connection) as few:
        status_of("default")
    for number in range(10):
        delivery(endpoint=f"e{number}", dispatch=f"d{number}")
        held(f"web:{number}", 60)
        worker_process(name=f"web:{number}")
    with CaptureQueriesContext(connection) as many:
        status_of("default")

    assert len(few) == len(many) == 6


def test_a_database_without_tables_has_no_outbox(monkeypatch):
    assert has_outbox("default")
    monkeypatch.setattr(Delivery._meta, "db_table", "elsewhere")
    assert not has_outbox("default")


WELL = Status("default", "", {}, 0, (), (), (), ())


def stands(age=0.0, failed=0, alive=()):
    workers = tuple(status.Worker("w", each, 1, 1, 1, ()) for each in alive)
    return Status("default", "", {}, failed, (), (), (), workers, oldest_due_seconds=age)


def pauses(**endpoints):
    """Say of paused endpoints for how long, and how many deliveries wait for each."""
    barred = [Barred(name, None, "ada", "", *told) for name, told in endpoints.items()]
    return Status("default", "", {}, 0, (), (), (), (), barred=tuple(barred))


def breaks(**deliveries):
    """Say of endpoints whose breaker is open how many deliveries wait for each."""
    barred = [Barred(name, 0.0, "", "", 300_000, number) for name, number in deliveries.items()]
    return Status("default", "", {}, 0, (), (), (), (), barred=tuple(barred))


OPEN = "The breaker of the endpoint 'crm' is open: most calls to it failed."


@pytest.mark.parametrize(
    ("limits", "standing", "sentences"),
    [
        (Limits(), WELL, []),
        (Limits(), breaks(crm=1, erp=0), [OPEN]),
        (Limits(), breaks(crm=0), []),
        (Limits(), stands(age=299), []),
        (Limits(), stands(age=301), ["A delivery has been due for 301 s (limit 300)."]),
        (Limits(max_age=20), stands(age=21), ["A delivery has been due for 21 s (limit 20)."]),
        (Limits(max_age=None), stands(age=9999), []),
        (Limits(), stands(failed=1), ["1 FAILED within an hour (limit 0)."]),
        (Limits(max_failed=5), stands(failed=5), []),
        (
            Limits(max_failed=5),
            stands(failed=10_001),
            ["more than 10000 FAILED within an hour (limit 5)."],
        ),
        (Limits(max_failed=None), stands(failed=7), []),
        (Limits(need_worker=True), WELL, ["No dispatch_worker is alive."]),
        (Limits(need_worker=True), stands(alive=[False]), ["No dispatch_worker is alive."]),
        (Limits(need_worker=True), stands(alive=[False, True]), []),
        (Limits(), pauses(crm=(86399, 5)), []),
        (Limits(), pauses(crm=(99999, 0)), []),
        (
            Limits(),
            pauses(crm=(86401, 5)),
            [
                "The endpoint 'crm' has been paused for 1 d 0 h (limit 1 d 0 h), and 5 deliveries "
                "wait for it."
            ],
        ),
        (
            Limits(max_pause=90),
            pauses(crm=(190, 1)),
            [
                "The endpoint 'crm' has been paused for 3 min (limit 1 min), and 1 delivery waits "
                "for it."
            ],
        ),
        (Limits(max_pause=None), pauses(crm=(86401, 5)), []),
    ],
)
def test_limits_say_what_is_not_well(limits, standing, sentences):
    assert limits.problems(standing) == sentences


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="Plans are read on PostgreSQL.")
def test_nothing_reads_through_what_is_finished():
    with connection.cursor() as cursor:
        cursor.execute(FINISHED)
        cursor.execute("ANALYZE signal_dispatch_delivery")
    with CaptureQueriesContext(connections["default"]) as queries:
        status_of("default")
    for query in queries:
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN " + query["sql"].replace("%", "%%"), ())
            plan = "\n".join(line for (line,) in cursor.fetchall())
        bounded = "Limit" in plan
        assert bounded or "Seq Scan on signal_dispatch_delivery" not in plan, plan
    lately = next(q["sql"] for q in queries if "finished_at" in q["sql"])
    with connection.cursor() as cursor:
        cursor.execute("EXPLAIN " + lately.replace("%", "%%"), ())
        assert "signal_dispatch_finished" in str(cursor.fetchall())


FINISHED = """
INSERT INTO signal_dispatch_delivery (uid, environment, dispatch, endpoint, event, model, object_pk,
    lane, hops, method, path, headers, body, state, held_by, epoch, attempts, handler_tries, trace,
    created_at, finished_at, error_class, reason, retried)
SELECT gen_random_uuid(), '', 'shop.Told', 'crm', 'updated', 'shop.order', n::text, md5(n::text), 0,
    'POST', '', '{}', '', CASE WHEN n % 4 = 0 THEN 'failed' ELSE 'delivered' END, '', 1, 1, 0, '',
    now() - interval '3 days', now() - n * interval '10 seconds', '', '', false
FROM generate_series(1, 20000) AS n
"""


def test_what_waits_for_a_paused_endpoint_or_an_open_breaker_is_told_as_that(declare):
    declare(Order)
    old = DatabaseNow(-1000)
    delivery(endpoint="crm", available_at=old)
    delivery(endpoint="hubspot", available_at=old)
    bars.pause("default", "crm", by="ada", reason="They are moving house.")
    bars.open_breaker("default", "hubspot", Breaker(pause=40), attempts=10, failed=10)
    found = status_of("default")

    paused, opened = found.barred
    assert 0 <= paused.since_seconds_ago < 100
    told = Barred("crm", None, "ada", "They are moving house.", paused.since_seconds_ago, 1)
    assert paused == told
    assert (opened.endpoint, opened.deliveries) == ("hubspot", 1)
    assert 0 <= opened.since_seconds_ago < 100
    assert 30 < opened.seconds_left <= 40
    assert found.oldest_due_seconds == 0
    (problem,) = Limits().problems(found)
    assert problem.startswith("The breaker of the endpoint 'hubspot' is open")
    bars.resume("default", "crm")
    assert status_of("default").oldest_due_seconds > 900


@pytest.mark.parametrize(
    "foreign", [{"endpoint": "gone"}, {"dispatch": "shop.Gone"}, {"model": "shop.tag"}]
)
def test_what_is_stranded_is_left_to_others_but_not_for_ever(declare, foreign):
    declare(Order)
    delivery(available_at=DatabaseNow(-200), **foreign)
    assert Limits().problems(status_of("default")) == [], "a deploy may be under way"
    delivery(available_at=DatabaseNow(-7200), **foreign)
    delivery(available_at=DatabaseNow(-250))
    found = status_of("default")

    assert 7200 <= found.oldest_stranded_seconds < 7300
    assert 250 <= found.oldest_due_seconds < 300
    (problem,) = Limits().problems(found)
    assert re.fullmatch(
        r"A delivery that nobody here may take has been due for 72\d\d s \(limit 300\)\.", problem
    )
    assert Limits(max_age=None).problems(found) == []
    bars.pause("default", "gone", by="ada", reason="")
    paused = status_of("default").oldest_stranded_seconds
    assert (paused == 0) == ("endpoint" in foreign)


def test_what_belongs_to_another_environment_is_not_due_for_too_long(declare):
    declare(Order)
    delivery(available_at=DatabaseNow(-7200), environment="staging")
    found = status_of("default")

    assert len(found.stranded) == 1
    assert (found.oldest_due_seconds, found.oldest_stranded_seconds) == (0, 0)
    assert Limits().problems(found) == []


def test_of_tenants_no_more_is_told_than_the_name_of_their_entry():
    found = pauses(**{"tenant:1": (90000, 2), "tenant:2": (99000, 3), "tenant:3": (99999, 0)})

    assert Limits().problems(found, named=lambda alias: alias.partition(":")[0]) == [
        "The endpoint 'tenant' has been paused for 1 d 3 h (limit 1 d 0 h), and 5 deliveries wait "
        "for it."
    ]


def test_what_is_paused_tells_of_all_that_waits_for_it():
    delivery(available_at=DatabaseNow(-10))
    delivery(available_at=DatabaseNow(100))
    held("web:1:ab", 60)
    waiting("a")
    delivery(environment="staging")
    bars.pause("default", "crm", by="ada", reason="")

    (paused,) = status_of("default").barred
    assert paused.deliveries == 4


def test_a_breaker_that_settings_took_away_keeps_nobody_from_being_well(settings):
    delivery()
    bars.open_breaker("default", "crm", Breaker(), attempts=10, failed=10)
    assert Limits().problems(status_of("default")) == [OPEN]
    entry = settings.SIGNAL_DISPATCH_ENDPOINTS["crm"] | {"BREAKER": None}
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": entry}

    assert status_of("default").barred == ()
