"""Transactions of our own that the database ends for a deadlock, and that can be done again."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from django.db import OperationalError, connections

T = TypeVar("T")

#: How often the same transaction is tried. Each time somebody else got through.
TRIES: Final = 5
# PostgreSQL: appendix A, "PostgreSQL Error Codes". MariaDB and MySQL: ER_LOCK_DEADLOCK.
_SQLSTATE, _MYSQL_ERROR = "40P01", 1213


def again_after_deadlock(using: str, work: Callable[[], T]) -> T:
    """Do the work, which is one transaction, and once more where a deadlock ended it.

    What is one statement for a site, and gives way to others as one, is several in our hands. And
    MariaDB, while it looks through a small table, may take for a deadlock what is none. Inside of
    somebody's transaction the work is done once: all of that is undone by then.
    """
    connection = connections[using]
    if connection.in_atomic_block or not connection.get_autocommit():
        return work()
    for _try in range(TRIES - 1):
        try:
            return work()
        except OperationalError as error:
            if not is_deadlock(error):
                raise
    return work()


def is_deadlock(error: OperationalError) -> bool:
    """Say whether the database ended this transaction so that another one can go on."""
    cause: Any = error.__cause__
    sqlstate = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)  # psycopg 3 and 2
    return sqlstate == _SQLSTATE or error.args[:1] == (_MYSQL_ERROR,)
