"""Which endpoints of an entry with a RESOLVER have something due, and what it costs to know."""

from dataclasses import replace

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from signal_dispatch import claims, families
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from signal_dispatch.scopes import Kind, Scope
from tests.deliveries import delivery

MINE = Lease("me", 60)
SCOPE = Scope(
    "", frozenset({"crm"}), frozenset({("shop.Told", "shop.order")}), frozenset({"tenant"})
)


@pytest.mark.django_db
def test_the_endpoints_of_a_family_are_found_in_the_outbox():
    delivery(endpoint="crm", available_at=DatabaseNow(-3))
    delivery(endpoint="tenant:42", available_at=DatabaseNow(-70))
    delivery(endpoint="tenant:42", available_at=DatabaseNow(50))
    delivery(endpoint="tenant:7", available_at=DatabaseNow(20))
    delivery(endpoint="tenant:8", state="delivered", available_at=None, finished_at=DatabaseNow())
    delivery(endpoint="tenant:9", state="waiting", available_at=None)
    for other in ("tenant", "tenants:1", "nobody:42"):
        delivery(endpoint=other)
    delivery(endpoint="tenant:10", environment="staging")
    delivery(endpoint="tenant:11", dispatch="shop.Newer")

    found = claims.seconds_until_due("default", SCOPE)
    assert found == {
        Kind("crm", retried=False): pytest.approx(-3, abs=3),
        Kind("tenant:42", retried=False): pytest.approx(-70, abs=3),
        Kind("tenant:7", retried=False): pytest.approx(20, abs=3),
    }
    assert [kind.endpoint for kind in claims.due_kinds(found)] == ["tenant:42", "crm"]
    Delivery.objects.filter(endpoint="tenant:7").update(retried=True)
    assert Kind("tenant:7", retried=True) in claims.seconds_until_due("default", SCOPE)


@pytest.mark.django_db
def test_nothing_is_asked_for_no_family_and_one_query_where_nothing_is_pending():
    none = Scope("", frozenset(), SCOPE.dispatches)
    for scope, queries in ((none, 0), (replace(none, families=SCOPE.families), 1), (SCOPE, 2)):
        with CaptureQueriesContext(connection) as asked:
            assert claims.seconds_until_due("default", scope) == {}
        assert len(asked) == queries


@pytest.mark.django_db
def test_hundreds_of_endpoints_are_found_in_a_few_statements():
    for number in range(450):
        delivery(endpoint=f"tenant:{number}")
    with CaptureQueriesContext(connection) as asked:
        found = claims.seconds_until_due("default", SCOPE)

    assert {kind.endpoint for kind in found} == {f"tenant:{number}" for number in range(450)}
    assert len(asked) == 1 + (1 if connection.vendor == "mysql" else 3)


@pytest.mark.django_db
def test_endpoints_are_found_in_whatever_order_the_database_has_them():
    names = {f"tenant:{key}" for key in ("a", "ä", "-", "B", "b b", "Z", "zz", "_", "a-b", "1:2")}
    for name in names:
        delivery(endpoint=name)
    for size in (1, 3, 200):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(families, "STEPS", size)
            found = {kind.endpoint for kind in claims.seconds_until_due("default", SCOPE)}
        if connection.vendor == "mysql":  # to which "a" and "ä" are one, and so they are claimed
            assert len(found) >= len(names) - 1
        else:
            assert found == names


@pytest.mark.django_db
def test_a_family_is_claimed_in_fair_shares():
    for endpoint in ("tenant:1", "tenant:2", "crm"):
        for _ in range(5):
            delivery(endpoint=endpoint)

    taken = claims.claim("default", MINE, SCOPE, 6)
    assert sorted(d.endpoint for d in taken) == sorted(["tenant:1", "tenant:2", "crm"] * 2)


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite plans without looking at rows.")
def test_the_walk_goes_along_the_index():
    with CaptureQueriesContext(connection) as asked:
        claims.seconds_until_due("default", SCOPE)
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {asked[1]['sql']}")
        plan = [row[3] for row in cursor.fetchall()]
    looks = [line for line in plan if line.startswith("SEARCH") and "found" not in line]
    assert len(looks) == 4
    walk, first = "state=? AND finished_at=? AND environment=? AND endpoint>?", "environment=? AND"
    assert [walk in look for look in looks] == [True, True, False, False]
    assert "COVERING INDEX signal_dispatch_finished" in looks[0]
    for look in looks[2:]:  # first attempts, and retries
        assert "signal_dispatch_claim" in look
        assert first in look
