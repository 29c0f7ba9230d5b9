"""Find the endpoints of a RESOLVER's entry, a family, that have something to be sent.

Only the outbox knows which they are.
"""

from collections.abc import Collection, Sequence
from typing import Any

from django.db import connections
from django.db.models import Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Left
from django.db.models.lookups import Exact

from signal_dispatch.insertion import quoted_table

#: How many endpoints one statement finds on PostgreSQL and SQLite.
STEPS = 200

#: The endpoint that a query for one asks about, where ``ask_of_each()`` runs it.
EACH = RawSQL("found.endpoint", ())


def ask_of_each(
    using: str, environment: str, families: Collection[str], *questions: tuple[str, Sequence[Any]]
) -> dict[str, tuple[Any, ...]]:
    """Answer questions about each endpoint of these families that has something PENDING.

    A question is the SQL of a query for one value of the endpoint ``EACH``, with its parameters.
    It goes from one endpoint with something PENDING to the next, so the cost grows with their
    number, and neither with their deliveries nor with what is finished.
    """
    found: dict[str, tuple[Any, ...]] = {}
    after, more = "", bool(families)
    walk = _loose_scan if connections[using].vendor == "mysql" else _steps
    asked = "".join(f", ({sql}) AS answer_{n}" for n, (sql, _values) in enumerate(questions))
    while more:
        with_found, values = walk(quoted_table(using), environment, after)
        values += [value for _sql, given in questions for value in given]
        sql = f"{with_found} SELECT endpoint{asked} FROM found WHERE endpoint IS NOT NULL"
        with connections[using].cursor() as cursor:
            cursor.execute(f"{sql} ORDER BY endpoint", values)
            rows = cursor.fetchall()
        for endpoint, *answers in rows:
            family, colon, _key = endpoint.partition(":")
            if colon and family in families:
                found[endpoint] = tuple(answers)
        more = walk is _steps and len(rows) == STEPS
        after = rows[-1][0] if rows else ""
    return found


def members(families: Collection[str]) -> Q:
    """Return the condition that a delivery goes to an endpoint of these families."""
    condition = Q(pk__in=())
    for family in families:
        prefix = f"{family}:"
        # Each of the two is exact where the other knows no upper and lower case.
        same = Q(Exact(Left("endpoint", len(prefix)), prefix))
        condition |= same & Q(endpoint__startswith=prefix)
    return condition


# Both name ``finished_at``, which is always NULL here, because it stands in the index before
# the endpoint: signal_dispatch_finished.

_PENDING = "state = 'pending' AND finished_at IS NULL AND environment = %s AND endpoint > "


def _steps(table: str, environment: str, after: str) -> tuple[str, list[Any]]:
    """Write a walk from endpoint to endpoint, each step one look at the index."""
    next_one = (
        f"SELECT endpoint FROM {table} AS pending WHERE {_PENDING}{{after}}"
        " ORDER BY finished_at, environment, endpoint LIMIT 1"
    )
    sql = (
        "WITH RECURSIVE found (endpoint, step) AS"
        f" (SELECT endpoint, 1 FROM ({next_one.format(after='%s')}) AS head"
        f" UNION ALL SELECT ({next_one.format(after='found.endpoint')}), step + 1"
        f" FROM found WHERE step < {STEPS} AND endpoint IS NOT NULL)"
    )
    return sql, [environment, after, environment]


def _loose_scan(table: str, environment: str, after: str) -> tuple[str, list[Any]]:
    """Write what MariaDB and MySQL make such a walk of by themselves, once told the index."""
    sql = (
        "WITH found AS (SELECT DISTINCT state, finished_at, environment, endpoint"
        f" FROM {table} FORCE INDEX (signal_dispatch_finished) WHERE {_PENDING}%s)"
    )
    return sql, [environment, after]
