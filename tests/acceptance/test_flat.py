"""What a claim and a look at rest cost does not grow with what lies in the table."""

from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

import pytest
from django.db import connection, transaction

from signal_dispatch import claims
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
from signal_dispatch.outbox import Lease
from signal_dispatch.scopes import Scope
from tests.acceptance.rows import copy, tidy
from tests.acceptance.soak import report, scaled
from tests.deliveries import delivery

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        connection.vendor == "sqlite",
        reason="SQLite does not count what it reads; test_claims.py looks at its plan.",
    ),
]

SCOPE = Scope("", frozenset({"crm", "hubspot"}), frozenset({("shop.Told", "shop.order")}))
CLAIMED = 64
#: Of all rows that lie around, how many of each kind, in hundredths.
KINDS = {
    40: {"state": "delivered", "available_at": None},
    10: {"state": "failed", "available_at": None},
    15: {"state": "waiting", "available_at": None, "lane": "busy"},
    5: {"available_at": DatabaseNow(3600)},
    11: {"retried": True, "available_at": DatabaseNow(3600)},
    # Longer due than anything that may be taken, so each stands before it.
    9: {"endpoint": "unknown", "available_at": DatabaseNow(-9000)},
    6: {"environment": "production", "available_at": DatabaseNow(-9000)},
    4: {"held_by": "another", "epoch": 1, "available_at": DatabaseNow(50)},
}


def lay_around(count):
    for hundredths, values in KINDS.items():
        kind = {"event": f"kind-{hundredths}"}
        there = Delivery.objects.filter(**kind).count()
        copy(delivery(**values, **kind), count * hundredths // 100 - there)
    tidy()


class Cost:
    """Pages that PostgreSQL touched, or rows that MariaDB's engine was asked for."""

    def __init__(self):
        self.read = self.milliseconds = 0.0

    def explained(self, execute, sql, params, many, context):
        """Let PostgreSQL do it once for the count, and once for the result."""
        if sql.startswith(("SELECT", "UPDATE", "WITH")):
            execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params, many, context)
            ((told,),) = context["cursor"].fetchone()
            plan = told["Plan"]
            self.read += plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
            self.milliseconds += told["Execution Time"]
        return execute(sql, params, many, context)


@contextmanager
def counted():
    cost = Cost()
    if connection.vendor == "postgresql":
        with connection.execute_wrapper(cost.explained):
            yield cost
        return
    before, began = handler_reads(), perf_counter()
    yield cost
    cost.milliseconds = (perf_counter() - began) * 1000
    cost.read = handler_reads() - before


def handler_reads():
    with connection.cursor() as cursor:
        cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
        return sum(int(value) for _name, value in cursor.fetchall())


def cost_of_a_look(scope=SCOPE):
    with counted() as cost:
        found = claims.seconds_until_due("default", scope)
    return cost, found


def cost_of_a_claim(count=CLAIMED):
    with transaction.atomic():
        with counted() as cost:
            taken = claims.claim("default", Lease("me", 60), SCOPE, count)
        transaction.set_rollback(True)
    return cost, taken


def test_a_look_and_a_claim_cost_the_same_among_many_rows():
    looks, shares = {}, {}
    for count in (1_000, 100_000, *([1_000_000] if scaled(0, 1) else [])):
        lay_around(count)
        cost_of_a_look()  # whoever looks first after a deletion takes the dead entries out
        look, found = cost_of_a_look()
        assert min(found.values()) > 0, "nothing is due"
        due = delivery(available_at=DatabaseNow(-1))
        copy(due, CLAIMED * 2)
        cost, taken = cost_of_a_claim()
        assert len(taken) == CLAIMED
        Delivery.objects.filter(uid=due.uid).delete()
        looks[count], shares[count] = look.read, cost.read / CLAIMED
        report(
            f"{connection.vendor}, {count:,} rows",
            reads_per_look=look.read,
            ms_per_look=look.milliseconds,
            reads_per_claimed_row=shares[count],
            ms_per_claim=cost.milliseconds,
        )

    assert max(shares.values()) <= 1.5 * shares[1_000]
    # With a thousand times the rows the index has two more levels: a page each, for each endpoint.
    assert max(looks.values()) <= 2 * looks[1_000]


def test_a_look_at_tenants_costs_the_same_among_many_rows():
    scope = replace(SCOPE, endpoints=frozenset(), families=frozenset({"tenant"}))
    names = [f"tenant:{number}" for number in range(20)]
    for name in names:
        delivery(endpoint=name, available_at=DatabaseNow(60))
    looks = {}
    for count in (1_000, 100_000, *([1_000_000] if scaled(0, 1) else [])):
        lay_around(count)
        for name in names[:2]:
            finished = {"state": "delivered", "available_at": None, "endpoint": name}
            copy(delivery(finished_at=DatabaseNow(-9), **finished), count // 10)
        tidy()
        cost_of_a_look(scope)
        look, found = cost_of_a_look(scope)
        assert {kind.endpoint for kind in found} == set(names)
        looks[count] = look.read
        report(
            f"{connection.vendor}, 20 tenants among {count:,} rows",
            reads_per_look=look.read,
            ms_per_look=look.milliseconds,
        )

    assert max(looks.values()) <= 2 * looks[1_000]


def test_rows_of_unknown_dispatches_are_passed_over_one_by_one():
    """The price of a deploy: they share an endpoint with what is known, and so its index."""
    delivery(available_at=DatabaseNow(60))
    costs = {}
    for count in (100, scaled(10_000, 100_000)):
        parked = delivery(dispatch="shop.Newer", available_at=DatabaseNow(-9000))
        copy(parked, count)
        tidy()
        look = cost_of_a_look()[0]
        costs[count] = look.read
        report(
            f"{connection.vendor}, {count:,} due rows of an unknown dispatch",
            reads_per_look=look.read,
            ms_per_look=look.milliseconds,
        )

    most = max(costs)
    assert costs[most] <= 1.5 * costs[100] / 100 * most, "no worse than one by one"
