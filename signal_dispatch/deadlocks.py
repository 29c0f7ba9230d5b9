"""Transactions of our own that the database ends for a deadlock, and that can be done again."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from django.db import OperationalError

from signal_dispatch.databases import joined_transaction

T = TypeVar("T")

#: How often the same transaction is tried. Each time somebody else got through.
TRIES: Final = 5
# PostgreSQL: appendix A, "PostgreSQL Error Codes". MariaDB and MySQL: ER_LOCK_DEADLOCK.
_SQLSTATE, _MYSQL_ERROR = "40P01", 1213


def in_one_transaction(using: str, work: Callable[[bool], T]) -> T:
    """Do the work in one transaction, and all of it again where a deadlock ended that.

    What is one statement for a site, and gives way to others as one, is several in our hands. And
    MariaDB, while it looks through a small table, may take for a deadlock what is none. The work is
    told whether the transaction is the package's own. Inside of somebody's it is done once: all of
    that is undone by then.
    """
    for _try in range(TRIES - 1):
        undone: OperationalError | None = None
        try:
            with joined_transaction(using) as alone:
                try:
                    return work(alone)
                except OperationalError as error:
                    undone = error if alone and is_deadlock(error) else None
                    raise
        except OperationalError as error:
            # A hook of the commit may raise one, too: then the work is done.
            if error is not undone:
                raise
    with joined_transaction(using) as alone:
        return work(alone)


def is_deadlock(error: OperationalError) -> bool:
    """Say whether the database ended this transaction so that another one can go on."""
    cause: Any = error.__cause__
    sqlstate = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)  # psycopg 3 and 2
    return sqlstate == _SQLSTATE or error.args[:1] == (_MYSQL_ERROR,)
