"""Say which endpoints there are: those of settings, and those that rows name."""

from typing import Any

from django.db import connections

from signal_dispatch.conf import settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import Delivery, EndpointMinute, EndpointState

#: Endpoints that only rows name are looked for up to so many.
MOST_FOUND = 200


def names(using: str) -> list[str]:
    """Return the endpoints: of settings, and up to ``MOST_FOUND`` each that kinds of rows name."""
    single = [alias for alias in endpoints if not is_family(alias)]
    states = EndpointState.objects.using(using).filter(environment=settings.environment)
    barred = states.barred().order_by("endpoint").values_list("endpoint", flat=True)[:MOST_FOUND]
    return sorted({*single, *barred, *_pending(using), *_called(using)})


def families() -> list[str]:
    """Return the entries with a RESOLVER: each stands for many endpoints."""
    return sorted(alias for alias in endpoints if is_family(alias))


def is_family(alias: str) -> bool:
    """Say whether it is an entry with a RESOLVER, and no endpoint."""
    entry = endpoints.entry(alias)
    return ":" not in alias and entry is not None and bool(entry.resolver)


def is_known(using: str, alias: str) -> bool:
    """Say whether settings or rows name an endpoint."""
    if alias in endpoints and (":" not in alias or endpoints.find(alias) is not None):
        return not is_family(alias)
    mine = {"environment": settings.environment, "endpoint": alias}
    models: tuple[Any, ...] = (Delivery, EndpointState, EndpointMinute)
    return any(model.objects.using(using).filter(**mine).exists() for model in models)


def _pending(using: str) -> list[str]:
    """Return those that have something to be sent."""
    where = "state = 'pending' AND finished_at IS NULL AND environment = %s"
    order = "finished_at, environment, endpoint"
    return _walk(using, Delivery, where, order, "signal_dispatch_finished")


def _called(using: str) -> list[str]:
    """Return those that were called within the time that minutes are kept."""
    order = "environment, endpoint"
    return _walk(using, EndpointMinute, "environment = %s", order, "signal_dispatch_minute")


def _walk(using: str, model: Any, where: str, order: str, index: str) -> list[str]:
    """Find the first endpoints of a table, each by one look at the index."""
    connection = connections[using]
    table = connection.ops.quote_name(model._meta.db_table)
    next_one = (
        f"SELECT endpoint FROM {table} WHERE {where} AND {table}.endpoint > {{}}"
        f" ORDER BY {order} LIMIT 1"
    )
    sql = (
        f"WITH RECURSIVE found (endpoint, step) AS"
        f" (SELECT endpoint, 1 FROM ({next_one.format('%s')}) AS head UNION ALL"
        f" SELECT ({next_one.format('found.endpoint')}), step + 1"
        f" FROM found WHERE step < {MOST_FOUND} AND endpoint IS NOT NULL)"
        f" SELECT endpoint FROM found WHERE endpoint IS NOT NULL"
    )
    values = [settings.environment, "", settings.environment]
    if connection.vendor == "mysql":  # which makes such a walk of this by itself
        sql = (
            f"SELECT DISTINCT {order} FROM {table} FORCE INDEX ({index})"
            f" WHERE {where} AND endpoint > %s ORDER BY {order} LIMIT {MOST_FOUND}"
        )
        values.pop()
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return [row[-1] for row in cursor.fetchall()]
