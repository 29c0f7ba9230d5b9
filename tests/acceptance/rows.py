"""Fill the outbox with very many rows, by one statement for each kind."""

from django.db import connections

from signal_dispatch.models import Delivery

_SERIES = {
    "postgresql": "SELECT generate_series(1, {count})",
    "mysql": "SELECT seq FROM seq_1_to_{count}",
    "sqlite": (
        "WITH RECURSIVE series(n) AS"
        " (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {count}) SELECT n FROM series"
    ),
}


def copy(made: Delivery, count: int, using: str = "default") -> None:
    """Write so many rows more that are like this one, down to its ``uid``."""
    connection = connections[using]
    columns = ", ".join(f.column for f in Delivery._meta.concrete_fields if f.column != "id")
    series = _SERIES[connection.vendor].format(count=count)
    table = Delivery._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {table},"  # noqa: S608 - ours
            f" ({series}) AS series WHERE id = %s",
            [made.pk],
        )


def tidy(using: str = "default") -> None:
    """Let the database note how many rows there are, as it does by itself in time."""
    statements = {"postgresql": "VACUUM ANALYZE {}", "mysql": "ANALYZE TABLE {}"}
    statement = statements.get(connections[using].vendor, "ANALYZE {}")
    with connections[using].cursor() as cursor:
        cursor.execute(statement.format(Delivery._meta.db_table))
        if cursor.description:
            cursor.fetchall()
