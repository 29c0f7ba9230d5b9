"""Say how endpoints fare: whether they may be called, what waits for them, how calls went.

What a page of them costs grows neither with the outbox nor with what is unfinished in it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models import F, Q, Sum, Value

from signal_dispatch.clocks import DatabaseNow, SecondsFromNow
from signal_dispatch.conf import settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import Delivery, EndpointMinute, EndpointState, State

DAY_SECONDS = 86400.0
#: Seconds of the spans whose share of successes is told.
SPANS = {"hour": 3600.0, "day": DAY_SECONDS, "week": 7 * DAY_SECONDS}
_COUNTS = ("attempts", "delivered")
_BUCKETS = ("within_100ms", "within_1s", "within_10s")


@dataclass(frozen=True, slots=True)
class Bar:
    """Whether an endpoint may be called.

    ``kind``: ``open``, ``paused`` (by a person), ``breaker``, ``disabled``, or ``gone`` where
    settings here do not name it, or its entry is faulty. Seconds: until a call may probe it, 0
    where one may; and, negative, since when it is paused, or its breaker open.
    """

    kind: str
    seconds_left: float = 0.0
    since_in: float = 0.0
    since: Any = None
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """What waits for an endpoint; each is counted up to ``most``, where one more means more.

    ``later`` is scheduled or in hand, ``waiting`` behind others of its lane, of which there are
    ``lanes``: those are blocked.
    """

    most: int
    due: int = 0
    oldest_due_seconds: float = 0.0
    later: int = 0
    waiting: int = 0
    lanes: int = 0


@dataclass(frozen=True, slots=True)
class Calls:
    """The attempts of some time, and how long those of a day took, in a few steps."""

    attempts: int = 0
    delivered: int = 0
    buckets: tuple[int, ...] = ()

    @property
    def percent(self) -> float | None:
        """The share of those that delivered; None where there was none."""
        return 100.0 * self.delivered / self.attempts if self.attempts else None

    def within(self, percent: float) -> int | None:
        """Return within which step so many percent are: of 0 to 2, 3 for none of them."""
        passed = 0
        for step, count in enumerate(self.buckets):
            passed += count
            if self.attempts and 100 * passed >= percent * self.attempts:
                return step
        return len(self.buckets) if self.attempts else None


def bars_of(using: str, aliases: Sequence[str]) -> dict[str, Bar]:
    """Say of each whether it may be called."""
    rows: Any = EndpointState.objects.using(using).filter(environment=settings.environment)
    rows = rows.barred().filter(endpoint__in=aliases)
    rows = rows.annotate(
        left=SecondsFromNow("open_until"),
        paused_in=SecondsFromNow("paused_at"),
        opened_in=SecondsFromNow("opened_at"),
    )
    found = {row.endpoint: row for row in rows}
    return {alias: _bar(alias, found.get(alias)) for alias in aliases}


def _bar(alias: str, row: Any) -> Bar:
    endpoint = endpoints.find(alias)
    if endpoint is None:
        return Bar("gone")
    if row is not None and row.paused_at:
        told = {"by": row.paused_by, "reason": row.pause_reason}
        return Bar("paused", since_in=row.paused_in, since=row.paused_at, **told)
    # A breaker that settings took away holds nobody up.
    if row is not None and endpoint.breaker is not None:
        since = {"since_in": row.opened_in, "since": row.opened_at}
        return Bar("breaker", seconds_left=max(0.0, float(row.left)), **since)
    return Bar("open" if endpoint.enabled else "disabled")


def queues_of(using: str, aliases: Sequence[str], most: int) -> dict[str, Queue]:
    """Count what waits for each, in one statement."""
    looks, values = [], []
    for number, alias in enumerate(aliases):
        for kind, rows, counted in _looks(using, alias):
            sql, given = rows[: most + 1].query.get_compiler(using=using).as_sql()
            # Told apart by numbers of ours: no name comes into the SQL.
            looks.append(f"SELECT {number}, {kind}, COUNT(*), {counted} FROM ({sql}) AS looked")
            values += given
    if not looks:
        return {}
    with connections[using].cursor() as cursor:
        cursor.execute(" UNION ALL ".join(looks), values)
        found = cursor.fetchall()
    return {alias: _queue(most, found, number) for number, alias in enumerate(aliases)}


_DUE, _LATER, _WAITING = range(3)


def _looks(using: str, alias: str) -> Iterator[tuple[int, Any, str]]:
    rows = Delivery.objects.using(using).filter(environment=settings.environment, endpoint=alias)
    seconds = SecondsFromNow("available_at")
    for retried in (False, True):
        # A plain False would be written as NOT, which is no place in an index.
        timed = rows.filter(retried=Value(retried)).annotate(seconds=seconds).values("seconds")
        timed = timed.order_by("available_at", "id")
        yield _DUE, timed.filter(available_at__lte=DatabaseNow()), "MIN(seconds)"
        yield _LATER, timed.filter(available_at__gt=DatabaseNow()), "MIN(seconds)"
    waiting = rows.filter(state=State.WAITING, finished_at__isnull=True).order_by()
    yield _WAITING, waiting.values("lane"), "COUNT(DISTINCT lane)"


def _queue(most: int, found: Iterable[Sequence[Any]], number: int) -> Queue:
    counts, oldest, lanes = [0, 0, 0], 0.0, 0
    for _number, kind, count, told in (row for row in found if row[0] == number):
        counts[kind] += count
        if kind == _DUE and told is not None:
            oldest = max(oldest, -float(told))
        if kind == _WAITING:
            lanes = int(told)
    due, later, waiting = (min(count, most + 1) for count in counts)
    return Queue(most, due, oldest, later, waiting, lanes)


def calls_of(using: str, aliases: Sequence[str]) -> dict[str, dict[str, Calls]]:
    """Sum up the attempts of each, by the spans."""
    rows = EndpointMinute.objects.using(using).filter(
        environment=settings.environment, endpoint__in=aliases
    )
    within = Q(minute__gt=DatabaseNow(-SPANS["hour"]))
    lately = {f"hour_{name}": Sum(name, filter=within, default=0) for name in _COUNTS}
    # Apart from the week's, which is long: there each sum more is felt.
    day = _summed(rows, "day", _COUNTS + _BUCKETS, lately)
    week = _summed(rows, "week", _COUNTS, {})
    told = {alias: day.get(alias, {}) | week.get(alias, {}) for alias in aliases}
    return {alias: {span: _calls(told[alias], span) for span in SPANS} for alias in aliases}


def throughput(using: str) -> Calls:
    """Sum up the last hour's attempts, of all endpoints."""
    rows = EndpointMinute.objects.using(using).filter(environment=settings.environment)
    lately = rows.filter(minute__gt=DatabaseNow(-SPANS["hour"]))
    return Calls(**lately.aggregate(**{name: Sum(name, default=0) for name in _COUNTS}))


def _summed(rows: Any, span: str, names: Iterable[str], more: dict[str, Any]) -> dict[str, Any]:
    sums = {f"{span}_{name}": Sum(name, default=0) for name in names}
    found = rows.filter(minute__gt=DatabaseNow(-SPANS[span])).order_by()
    groups = found.values(alias=F("endpoint")).annotate(**sums, **more)
    return {row["alias"]: row for row in groups}


def _calls(row: dict[str, Any], span: str) -> Calls:
    attempts, delivered, *buckets = (
        int(row.get(f"{span}_{name}", 0)) for name in _COUNTS + _BUCKETS
    )
    return Calls(attempts, delivered, tuple(buckets))
