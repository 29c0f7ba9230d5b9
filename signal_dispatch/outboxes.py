"""Which outboxes this process looks into, and which of them are left alone for a while."""

import logging
from collections.abc import Callable, Iterable
from time import monotonic

from django.db import DEFAULT_DB_ALIAS, DatabaseError, Error, connections

from signal_dispatch.databases import is_refused_by_test, outbox_aliases
from signal_dispatch.models import Delivery
from signal_dispatch.registry import registry

logger = logging.getLogger("signal_dispatch")

#: The longest rest, in seconds, of a database that can't be reached while others can.
MAX_REST_SECONDS = 10.0
#: The rest of one that has no outbox, and the longest of one that takes long to refuse.
LONG_REST_SECONDS = 300.0
#: What drivers tell where a table is missing: PostgreSQL's, and that of MariaDB and MySQL.
_NO_TABLE = ("42P01", "42S02")


class Outboxes:
    """The databases with an outbox, by alias: those that are named, or all there are."""

    def __init__(self, using: Iterable[str]) -> None:
        self._using = tuple(using)
        #: Where this process recorded something, whatever its routers say by now.
        self._met: set[str] = set()
        self._resting: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        #: Those that could be looked into, and what the others said when they were asked last.
        self._seen: set[str] = set()
        self._unwell: dict[str, str] = {}
        self._lacking: set[str] = set()

    def meet(self, using: str) -> None:
        """Note that there is an outbox in this database."""
        self._met.add(using)

    def awake(self) -> list[str]:
        """List those that may be looked into now."""
        known = self._using or self._met.union(
            outbox_aliases(Delivery, {dispatch.model for dispatch in registry})
        )
        now = monotonic()
        return [alias for alias in sorted(known) if self._resting.get(alias, now) <= now]

    def note_well(self, using: str) -> None:
        """Note that one could be looked into."""
        self._failures.pop(using, None)
        self._unwell.pop(using, None)
        self._lacking.discard(using)
        self._seen.add(using)

    def note_unwell(self, using: str, error: Exception) -> None:
        """Note what one said that could not be looked into."""
        self._unwell[using] = " ".join(str(error).split())

    def faults(self) -> list[str]:
        """Say of each that could not be looked into when it was asked last, why that is.

        One that nobody named may well have no outbox, as long as another one has.
        """
        unwell = dict(self._unwell)
        missing = self._lacking if self._using or not (self._seen or unwell) else ()
        return [
            *(f"The database {alias!r} can't be reached: {unwell[alias]}" for alias in unwell),
            *(no_outbox(alias) for alias in sorted(missing)),
        ]

    def rest(self, using: str, error: Exception, took: float) -> float:
        """Leave an unwell database alone for a while, and return for how many seconds.

        The longer it ``took`` to refuse, the longer: it keeps the others waiting meanwhile.
        """
        connections[using].close()
        failures = self._failures[using] = self._failures.get(using, 0) + 1
        rest = max(pause_after(failures, MAX_REST_SECONDS), min(10 * took, LONG_REST_SECONDS))
        self._resting[using] = monotonic() + rest
        logger.warning(
            "The outbox of the database %r can't be reached (%s); trying again in %.1f s.",
            using,
            error,
            rest,
            extra={"action": "outbox_unavailable"},
        )
        return rest

    def is_left_out(self, using: str, error: Exception) -> bool:
        """Say whether the database has no outbox for us, rather than being unwell."""
        if isinstance(error, DatabaseError):
            return self._lacks_tables(using)
        return is_refused_by_test(error)

    def _lacks_tables(self, using: str) -> bool:
        if not _is_empty(using):
            return False
        self._resting[using] = monotonic() + LONG_REST_SECONDS
        self._lacking.add(using)
        logger.warning(
            "The database %r has no outbox: run 'migrate' on it.",
            using,
            extra={"action": "outbox_missing"},
        )
        return True


def note_missing(using: str, error: DatabaseError) -> None:
    """Add to an error how to make the outbox, if it is raised because there is none."""
    # In a transaction that failed PostgreSQL answers no question; but it tells a code.
    code = getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None)
    if code in _NO_TABLE or (code is None and _is_empty(using)):
        error.add_note(no_outbox(using))


def _is_empty(using: str) -> bool:
    """Say whether the outbox's table is not there; False where the database does not answer."""
    try:
        return Delivery._meta.db_table not in connections[using].introspection.table_names()
    except Error:
        return False


def no_outbox(using: str) -> str:
    """Say that a database has no outbox, and how to make one."""
    there = "" if using == DEFAULT_DB_ALIAS else f" --database {using}"
    return f"The database {using!r} has no outbox: run 'manage.py migrate{there}'."


def do_all(works: Iterable[Callable[[], object]]) -> None:
    """Do one work after the other, whatever they raise; raise the first error at the end.

    One database that refuses keeps the work on the others from nobody.
    """
    errors: list[Exception] = []
    for work in works:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - raised below
            errors.append(error)
    if errors:
        raise errors[0]


def warn_of_outbox(error: Exception, pause: float) -> None:
    """Warn that none can be worked on just now, and say for how long they are left alone."""
    logger.warning(
        "The outbox can't be reached (%s: %s); trying again in %.1f s.",
        type(error).__name__,
        error,
        pause,
        exc_info=None if isinstance(error, Error) else error,
        extra={"action": "outbox_unavailable"},
    )


def pause_after(failures: int, longest: float) -> float:
    """Return how many seconds to leave a database alone after so many failures in a row."""
    # Bounded before it is raised: days of failures would be more than a float can hold.
    return min(longest, 0.25 * 2.0 ** min(failures, 20))
