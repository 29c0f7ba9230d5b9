"""Who may take what, and that nothing is taken twice."""

import os
import secrets
import threading
from dataclasses import replace

import pytest
from django.db import connection, connections
from django.db.models import F
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from signal_dispatch import claims
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.databases import own_transaction
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from signal_dispatch.scopes import Kind, Scope
from tests.acceptance.rows import copy, tidy
from tests.deliveries import delivery, statements

MINE = Lease("me", 60)
SCOPE = Scope("", frozenset({"crm", "hubspot"}), frozenset({("shop.Told", "shop.order")}))
NOBODY = replace(SCOPE, endpoints=frozenset())
FIRST, RETRY = Kind("crm", retried=False), Kind("crm", retried=True)


@pytest.mark.django_db
def test_the_longest_due_is_taken_first_and_belongs_to_the_holder():
    late, early = delivery(available_at=DatabaseNow(-5)), delivery(available_at=DatabaseNow(-50))
    delivery(available_at=DatabaseNow(-1))

    taken = claims.claim("default", MINE, SCOPE, 2)

    assert taken == [early, late]
    for shown in taken:
        row = Delivery.objects.get(pk=shown.pk)
        assert (row.held_by, row.epoch) == (shown.held_by, shown.epoch) == ("me", 1)
        assert 50 < (row.available_at - timezone.now()).total_seconds() < 61


@pytest.mark.django_db
def test_what_is_taken_is_not_taken_again_before_its_lease_ends():
    made = delivery(epoch=3, held_by="dead", available_at=DatabaseNow(-0.001))
    (taken,) = claims.claim("default", MINE, SCOPE, 10)
    assert (taken.held_by, taken.epoch) == ("me", 4)
    assert claims.claim("default", Lease("you", 60), SCOPE, 10) == []
    Delivery.objects.update(available_at=DatabaseNow(-1))

    (again,) = claims.claim("default", Lease("you", 60), SCOPE, 10)
    assert (again.pk, again.epoch, again.held_by) == (made.pk, 5, "you")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "values",
    [
        {"environment": "staging"},
        {"endpoint": "unknown"},
        {"dispatch": "shop.Newer"},
        {"model": "shop.parcel"},
        {"available_at": DatabaseNow(30)},
        {"available_at": None, "state": "waiting"},
        {"available_at": None, "state": "delivered"},
    ],
)
def test_what_is_not_ours_or_not_due_is_left_alone(values):
    made = delivery(**values)
    before = Delivery.objects.filter(pk=made.pk).values().get()

    assert claims.claim("default", MINE, SCOPE, 10) == []
    assert Delivery.objects.filter(pk=made.pk).values().get() == before


@pytest.mark.django_db
def test_taking_costs_two_statements_and_one_where_nothing_is():
    delivery()
    for count in (2, 1):
        with CaptureQueriesContext(connection) as queries:
            claims.claim("default", MINE, SCOPE, 10, due=[FIRST])
        assert len(statements(queries, "SELECT", "UPDATE")) == count


@pytest.mark.django_db
def test_without_being_told_what_is_due_it_looks_once_and_asks_nobody_else():
    with CaptureQueriesContext(connection) as queries:
        assert claims.claim("default", MINE, SCOPE, 10) == []

    assert len(queries) == 1


@pytest.mark.django_db
def test_an_endpoint_with_a_pile_leaves_the_others_their_share():
    pile = [delivery(available_at=DatabaseNow(-100)) for _ in range(6)]
    others = [delivery(endpoint="hubspot", available_at=DatabaseNow(-1)) for _ in range(2)]

    assert claims.claim("default", MINE, SCOPE, 4) == [*pile[:2], *others]
    assert claims.claim("default", MINE, SCOPE, 3) == pile[2:5]


@pytest.mark.django_db
def test_first_attempts_and_retries_share_what_there_is_room_for():
    pile = [delivery(retried=True, available_at=DatabaseNow(-100)) for _ in range(6)]
    first = [delivery(available_at=DatabaseNow(-1)) for _ in range(3)]

    assert claims.claim("default", MINE, SCOPE, 4) == [*pile[:2], *first[:2]]
    assert claims.claim("default", MINE, SCOPE, 4) == [*pile[2:4], first[2], pile[4]]
    assert claims.claim("default", MINE, SCOPE, 4) == pile[5:]


@pytest.mark.django_db
def test_a_share_of_one_goes_now_to_this_kind_and_now_to_that(monkeypatch):
    for _ in range(3):
        delivery(retried=True, available_at=DatabaseNow(-100))
        delivery(available_at=DatabaseNow(-1))
    monkeypatch.setattr(claims.random, "sample", lambda kinds, k: list(kinds))
    (retry,) = claims.claim("default", MINE, SCOPE, 1)
    monkeypatch.setattr(claims.random, "sample", lambda kinds, k: [*kinds][::-1])
    (first,) = claims.claim("default", MINE, SCOPE, 1)

    assert (retry.retried, first.retried) == (True, False)


@pytest.mark.django_db
def test_where_many_endpoints_have_something_each_gets_one_and_all_in_a_few_statements():
    scope = replace(SCOPE, endpoints=frozenset(f"shop-{number}" for number in range(60)))
    for number in range(60):
        delivery(endpoint=f"shop-{number}", available_at=DatabaseNow(-60 + number))
        delivery(endpoint=f"shop-{number}", retried=number % 2 == 0)
    due = claims.due_kinds(claims.seconds_until_due("default", scope))
    with CaptureQueriesContext(connection) as queries:
        taken = claims.claim("default", MINE, scope, 40, due=due)

    assert {d.endpoint for d in taken} == {f"shop-{number}" for number in range(40)}
    assert len(taken) == 40
    assert len(statements(queries, "SELECT", "UPDATE")) == 3
    assert {d.held_by for d in Delivery.objects.filter(epoch=1)} == {"me"}


@pytest.mark.django_db
def test_what_another_process_took_meanwhile_is_not_taken_with_the_first_of_each(monkeypatch):
    made = [delivery(endpoint=name) for name in ("crm", "hubspot")]
    due = claims.due_kinds(claims.seconds_until_due("default", SCOPE))
    look = claims._looks

    def and_lose(using, firsts):
        found = list(look(using, firsts))
        claims.claim_ids("default", Lease("you", 60), [made[0].pk])
        return found

    monkeypatch.setattr(claims, "_looks", and_lose)
    assert claims.claim("default", MINE, SCOPE, 2, due=due) == [made[1]]


@pytest.mark.django_db
def test_where_not_all_endpoints_fit_the_longest_due_goes_first():
    late, early = (delivery(endpoint=name) for name in ("crm", "hubspot"))
    Delivery.objects.filter(pk=early.pk).update(available_at=DatabaseNow(-9))

    assert claims.claim("default", MINE, SCOPE, 1) == [early]
    assert claims.claim("default", MINE, SCOPE, 1) == [late]


@pytest.mark.django_db
@pytest.mark.parametrize("scope", [replace(SCOPE, dispatches=frozenset()), NOBODY])
def test_a_process_that_knows_nothing_asks_and_takes_nothing(scope):
    delivery()
    with CaptureQueriesContext(connection) as queries:
        assert claims.claim("default", MINE, scope, 10) == []

    assert not queries.captured_queries
    assert not scope.rows("default").exists()


@pytest.mark.django_db
def test_hundreds_of_endpoints_are_looked_at_in_a_few_statements():
    many = frozenset(f"shop-{number}" for number in range(600))
    for number in (3, 599):
        delivery(endpoint=f"shop-{number}")
    with CaptureQueriesContext(connection) as queries:
        found = claims.seconds_until_due("default", replace(SCOPE, endpoints=many))

    assert set(found) == {Kind("shop-3", retried=False), Kind("shop-599", retried=False)}
    assert len(queries) == 6


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite locks no rows.")
def test_a_claim_locks_no_row_that_it_does_not_take():
    parked = [delivery(endpoint="unknown"), delivery(environment="production")]
    later = [delivery(available_at=DatabaseNow(60)) for _ in range(5)]
    finished = [delivery(available_at=None, state="delivered") for _ in range(5)]
    due = [delivery() for _ in range(10)]
    # On the way to those that are taken, MariaDB locks what the index could not leave out.
    passed = [delivery(dispatch="shop.Newer", available_at=DatabaseNow(-9))]
    # A table of a few rows is read whole, and MariaDB locks what it reads.
    copy(delivery(available_at=None, state="failed"), 500)
    tidy()
    with own_transaction("default"):
        taken = claims.claim("default", MINE, SCOPE, 4)
        free = set(in_another_thread(ids_that_can_be_locked))

    assert taken == due[:4]
    passed = [] if connection.vendor == "mysql" else passed
    assert free == {d.pk for d in [*parked, *later, *finished, *due[4:], *passed]}


@pytest.mark.django_db
def test_the_claim_goes_along_its_index_and_sorts_nothing():
    for _ in range(5):
        delivery()
        delivery(available_at=None, state="delivered")
    for rows in (
        SCOPE.scheduled("default", "crm", retried=False).filter(available_at__lte=DatabaseNow())[
            :3
        ],
        SCOPE.scheduled("default", "crm", retried=False)[:1],
        SCOPE.scheduled("default", "crm", retried=True)[:1],
    ):
        plan = rows.explain()
        assert "signal_dispatch_claim" in plan
        if connection.vendor == "sqlite":  # which names what it compares along the index
            assert "environment=? AND endpoint=? AND retried=? AND available_at" in plan
        assert not [sort for sort in ("Sort", "filesort", "TEMP B-TREE") if sort in plan]


def ids_that_can_be_locked():
    with own_transaction("default"):
        rows = Delivery.objects.exclude(state="failed")
        return [d.pk for d in rows.select_for_update(skip_locked=True)]


def in_another_thread(work):
    found = []

    def run():
        found.append(work())
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    return found[0]


@pytest.mark.django_db(transaction=True)
def test_threads_that_take_at_once_share_without_overlap():
    for _ in range(60):
        delivery()
    taken, together = [], threading.Barrier(4)

    def take(name):
        together.wait(10)
        while mine := claims.claim("default", Lease(name, 60), SCOPE, 3):
            taken.extend((d.pk, name) for d in mine)
        connections.close_all()

    threads = [threading.Thread(target=take, args=(f"p{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    numbers = [pk for pk, _name in taken]
    assert len(numbers) == len(set(numbers)) == 60
    assert dict(taken) == dict(Delivery.objects.values_list("pk", "held_by"))
    assert set(Delivery.objects.values_list("epoch", flat=True)) == {1}


@pytest.mark.django_db
def test_named_rows_are_taken_whenever_they_are_due_unless_told_otherwise():
    later, now = delivery(available_at=DatabaseNow(60)), delivery()
    waiting = delivery(state="waiting", available_at=None)
    ids = [waiting.pk, now.pk, later.pk]

    assert claims.claim_ids("default", MINE, ids, only_due=True) == [now]
    assert claims.claim_ids("default", MINE, ids) == [later, now]


@pytest.mark.django_db
@pytest.mark.parametrize("seconds", [-20, 40])
def test_the_next_due_of_each_endpoint_is_known_by_one_query(seconds):
    assert claims.seconds_until_due("default", SCOPE) == {}
    delivery(available_at=DatabaseNow(-900), dispatch="shop.Newer")
    delivery(available_at=None, state="waiting")
    delivery(available_at=DatabaseNow(50))
    delivery(available_at=DatabaseNow(seconds))
    delivery(available_at=DatabaseNow(-70), endpoint="hubspot", retried=True)
    with CaptureQueriesContext(connection) as queries:
        found = claims.seconds_until_due("default", SCOPE)

    hubspot = Kind("hubspot", retried=True)
    assert found == {FIRST: pytest.approx(seconds, abs=5), hubspot: pytest.approx(-70, abs=5)}
    assert claims.due_kinds(found) == ([hubspot, FIRST] if seconds < 0 else [hubspot])
    assert len(queries) == 1
    assert set(claims.seconds_until_due("default", SCOPE, without=[hubspot])) == {FIRST}


@pytest.mark.django_db
def test_renewing_starts_the_lease_anew_for_what_is_still_held():
    kept, lost, done = (delivery(held_by="me", epoch=2) for _ in range(3))
    Delivery.objects.filter(pk=lost.pk).update(held_by="you", epoch=3)
    Delivery.objects.filter(pk=done.pk).update(state="delivered", available_at=None)

    assert claims.renew("default", MINE, [kept, lost, done]) == {kept.pk}
    left = {d.pk: d.available_at for d in Delivery.objects.all()}
    assert 50 < (left[kept.pk] - timezone.now()).total_seconds() < 61
    assert (left[lost.pk] - timezone.now()).total_seconds() < 5
    assert left[done.pk] is None


@pytest.mark.django_db
def test_renewing_is_one_statement_while_all_are_held():
    made = [delivery(held_by="me", epoch=1) for _ in range(3)]
    with CaptureQueriesContext(connection) as queries:
        assert claims.renew("default", MINE, made) == {d.pk for d in made}

    assert len(queries) == 1


@pytest.mark.django_db
def test_what_was_taken_anew_under_the_same_name_is_another_lease():
    first, second = delivery(held_by="me", epoch=1), delivery(held_by="you", epoch=1)
    Delivery.objects.filter(pk=first.pk).update(epoch=F("epoch") + 1)

    assert claims.renew("default", MINE, [first, second]) == set()
    assert claims.renew("default", MINE, [first]) == set()


@pytest.mark.django_db
def test_what_is_handed_back_is_due_for_everybody():
    later = {"available_at": DatabaseNow(60), "epoch": 1}
    mine, other, anew = (delivery(held_by=who, **later) for who in ("me", "you", "me"))
    Delivery.objects.filter(pk=anew.pk).update(epoch=2)
    held = [(d.pk, d.epoch) for d in (mine, other, anew)]

    assert claims.hand_back("default", "me", held) == 1
    assert claims.claim("default", Lease("third", 60), SCOPE, 10) == [mine]
    assert claims.hand_back("default", "me", [(anew.pk, 2), (other.pk, 1)]) == 1


@pytest.mark.django_db
def test_only_the_holders_pending_rows_are_read_back():
    mine = delivery(held_by="me", epoch=1)
    others = [
        delivery(held_by="you", epoch=1),
        delivery(held_by="me", epoch=1, state="delivered"),
        delivery(held_by="me", epoch=2),  # claimed since, and in hand
    ]
    ids = [mine.pk, *(other.pk for other in others)]

    assert claims.read_back("default", "me", [*ids, 10**9]) == [mine]


@pytest.mark.django_db
def test_what_is_read_back_is_as_the_orm_reads_it(django_assert_num_queries):
    made = delivery(
        held_by="me", epoch=1, headers={"X-A": "1"}, body=b"\x00\xff", retried=True, last_status=503
    )
    with django_assert_num_queries(1):
        (found,) = claims.read_back("default", "me", [made.pk])
        names = [field.attname for field in Delivery._meta.concrete_fields]
        values = {name: getattr(found, name) for name in names}

    assert not found._state.adding
    assert found._state.db == "default"
    read = Delivery.objects.get()
    assert values == {name: getattr(read, name) for name in names}
    assert {n: type(v) for n, v in values.items()} == {n: type(getattr(read, n)) for n in names}


@pytest.mark.django_db
def test_nothing_is_asked_where_there_is_nothing_to_read_back(django_assert_num_queries):
    with django_assert_num_queries(0):
        assert claims.read_back("default", "me", []) == []


def test_a_holder_is_one_process(monkeypatch):
    mine = claims.holder()
    assert claims.holder() == mine
    assert f":{os.getpid()}:" in mine
    monkeypatch.setattr(os, "getpid", lambda: 1)
    child = claims.holder()
    assert child != mine
    # The word at its end keeps a pid that is given out again from being taken for the old one.
    claims._holders.pop(1)
    assert claims.holder() != child
    claims._holders.pop(1)


def test_threads_that_ask_at_once_are_one_holder(monkeypatch):
    monkeypatch.setattr(claims, "_holders", {})
    together, token, told = threading.Barrier(4), secrets.token_hex, []

    def slow(count):
        together.wait(10)
        return token(count)

    monkeypatch.setattr(secrets, "token_hex", slow)
    threads = [threading.Thread(target=lambda: told.append(claims.holder())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(told) == 4
    assert len(set(told)) == 1
