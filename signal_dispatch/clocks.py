"""The database's clock in SQL: no host's own is asked, for they may differ by hours."""

from datetime import datetime
from typing import Any

from django.db import NotSupportedError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Expression, FloatField, Func

from signal_dispatch.moments import MomentField


def now_sql(connection: BaseDatabaseWrapper, seconds: float = 0.0) -> str:
    """Write "this moment, plus so many seconds" in SQL, by the database's own clock.

    PostgreSQL's ``now()`` is the start of the transaction, so a lease would begin in the past;
    ``CURRENT_TIMESTAMP`` of MariaDB and MySQL is in the session's time zone (Django #31638).
    Percent signs are doubled: the statement is always executed with parameters.
    """
    match connection.vendor:
        case "postgresql":
            return f"(statement_timestamp() + interval '{seconds:.6f} seconds')"
        case "mysql":
            return f"(UTC_TIMESTAMP(6) + INTERVAL {round(seconds * 1e6)} MICROSECOND)"
        case "sqlite":
            return f"strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now', '{seconds:+.3f} seconds')"
    raise NotSupportedError(
        f"signal_dispatch keeps its outbox on PostgreSQL, MariaDB, MySQL and SQLite, "
        f"not on {connection.vendor!r} (alias {connection.alias!r})."
    )


class DatabaseNow(Expression):
    """This moment by the database's clock, plus so many seconds."""

    output_field = MomentField()

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self.seconds = seconds

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL and its (no) parameters."""
        return now_sql(connection, self.seconds), ()


class DatabaseMinute(Expression):
    """The minute that is running, by the database's clock."""

    output_field = MomentField()

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL and its (no) parameters."""
        match connection.vendor:
            case "postgresql":
                return "date_trunc('minute', statement_timestamp())", ()
            case "mysql":
                return (
                    "CAST(DATE_FORMAT(UTC_TIMESTAMP(), '%%Y-%%m-%%d %%H:%%i:00') AS DATETIME)",
                    (),
                )
        # As Django writes a time without a fraction.
        return "strftime('%%Y-%%m-%%d %%H:%%M:00', 'now')", ()


class SpreadFromNow(Func):
    """A moment within so many seconds from now, by the last digits of a number in a column."""

    output_field = MomentField()
    arity = 1

    def __init__(self, *expressions: Any, seconds: float) -> None:
        super().__init__(*expressions, step=f"{seconds / 1000:.6f}")

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Return the SQL of PostgreSQL."""
        template = "(statement_timestamp() + MOD(%(expressions)s, 1000) * %(step)s * INTERVAL '1s')"
        return self.as_sql(compiler, connection, template=template)

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Return the SQL of MariaDB and MySQL."""
        micro = "MOD(%(expressions)s, 1000) * %(step)s * 1000000"
        template = f"(UTC_TIMESTAMP(6) + INTERVAL CAST({micro} AS UNSIGNED) MICROSECOND)"
        return self.as_sql(compiler, connection, template=template)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Return the SQL of SQLite."""
        # Doubled twice: for the template, and for the statement, which has parameters.
        modifier = "((%(expressions)s %%%% 1000) * %(step)s) || ' seconds'"
        template = f"strftime('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f', 'now', {modifier})"
        return self.as_sql(compiler, connection, template=template)


class SecondsFromNow(Func):
    """The seconds from this moment until the time in a column, negative when it is past."""

    output_field = FloatField()

    def as_postgresql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Return the SQL of PostgreSQL."""
        template = "EXTRACT(EPOCH FROM (%(expressions)s - statement_timestamp()))"
        return self.as_sql(compiler, connection, template=template)

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Return the SQL of MariaDB and MySQL."""
        template = "(TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), %(expressions)s) / 1000000)"
        return self.as_sql(compiler, connection, template=template)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        """Return the SQL of SQLite."""
        template = "((julianday(%(expressions)s) - julianday('now')) * 86400.0)"
        return self.as_sql(compiler, connection, template=template)


class StoredMoment(Expression):
    """A moment that was read from the database, written as it stands there.

    SQLite compares text, and our clock writes three places where Django writes six or none.
    """

    output_field = MomentField()

    def __init__(self, moment: datetime) -> None:
        super().__init__()
        self.moment = moment

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """Return a placeholder and the moment."""
        value = self.output_field.get_db_prep_value(self.moment, connection)
        if connection.vendor == "sqlite":
            value = f"{value}{'' if '.' in value else '.000'}"[:23]
        return "%s", (value,)
