"""Say how an outbox stands: what is due, held, stranded, failed, and which workers live."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import connections
from django.db.models import Count, F, Max, Min, Q

from signal_dispatch.barred import Barred, barred_in
from signal_dispatch.clocks import DatabaseNow, SecondsFromNow
from signal_dispatch.conf import settings
from signal_dispatch.exceptions import EndpointUnresolved
from signal_dispatch.heartbeats import DEAD_SECONDS
from signal_dispatch.models import UNFINISHED, Delivery, EndpointState, State, WorkerProcess
from signal_dispatch.stranding import Stranded, stranded_because, stranded_in

#: Finished deliveries are counted up to here; one more means "more than that".
COUNTED = 10_000
#: Seconds that "lately" means for what failed.
LATELY_SECONDS = 3600.0

_WHOSE = ("environment", "endpoint", "dispatch", "model")
_COUNTS = ("due", "scheduled", "held", "waiting", "waiting_lanes")


@dataclass(frozen=True, slots=True)
class Backlog:
    """The unfinished deliveries of one endpoint. The age is in seconds, 0 where none is due."""

    endpoint: str
    due: int
    oldest_due_seconds: float
    scheduled: int
    held: int
    waiting: int
    waiting_lanes: int

    @property
    def unfinished(self) -> int:
        """Count all of them."""
        return self.due + self.scheduled + self.held + self.waiting


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds leases, and the seconds until the first of them is over."""

    name: str
    deliveries: int
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Unresolved:
    """An endpoint that its RESOLVER did not name when it was asked last, and what waits for it.

    What is stranded is not counted: nobody here asks for it again.
    """

    endpoint: str
    reason: str
    deliveries: int


@dataclass(frozen=True, slots=True)
class Worker:
    """A ``dispatch_worker`` of this environment; times in seconds before now."""

    name: str
    alive: bool
    started_seconds_ago: float
    seen_seconds_ago: float
    concurrency: int
    endpoints: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """How the outbox of one database stands, by that database's clock.

    ``states`` counts all environments: what is unfinished exactly, what is finished up to
    ``COUNTED``, where ``COUNTED + 1`` means more. The rest is about the environment of these
    settings, ``stranded`` excepted.
    """

    database: str
    environment: str
    states: Mapping[str, int]
    failed_lately: int
    backlogs: tuple[Backlog, ...]
    holders: tuple[Holder, ...]
    stranded: tuple[Stranded, ...]
    workers: tuple[Worker, ...]
    unresolved: tuple[Unresolved, ...] = ()
    barred: tuple[Barred, ...] = ()
    #: How long the longest due that this code may take has been due, at no barred endpoint.
    oldest_due_seconds: float = 0.0
    #: The same of what it may not take, in its own environment: it is up to other processes.
    oldest_stranded_seconds: float = 0.0


def counted(number: int) -> str:
    """Write a bounded count: "more than" stands for what was not counted to its end."""
    return str(number) if number <= COUNTED else f"more than {COUNTED}"


def has_outbox(using: str) -> bool:
    """Say whether the tables are there. Raises what the database raises."""
    connection = connections[using]
    tables = set(connection.introspection.table_names())
    wanted = {model._meta.db_table for model in (Delivery, WorkerProcess, EndpointState)}
    return wanted <= tables


def status_of(using: str) -> Status:
    """Ask one outbox how it stands. Raises what the database raises.

    The cost grows with what is unfinished, and no further: nothing reads through what is finished.
    """
    groups, counts = unfinished_groups(using), _counts(using)
    mine = [group for group in groups if group["environment"] == settings.environment]
    backlogs = tuple(_backlogs(mine))
    barred = tuple(barred_in(using, {b.endpoint: b.unfinished for b in backlogs}))
    free = [g for g in mine if g["endpoint"] not in {each.endpoint for each in barred}]
    return Status(
        using,
        settings.environment,
        states=_states(counts, groups),
        failed_lately=counts["failed lately"],
        backlogs=backlogs,
        holders=tuple(_holders(using)),
        stranded=tuple(stranded_in(groups)),
        workers=tuple(_workers(using)),
        unresolved=tuple(_unresolved(using)),
        barred=barred,
        oldest_due_seconds=_age(g for g in free if not _is_stranded(g)),
        oldest_stranded_seconds=_age(g for g in free if _is_stranded(g)),
    )


def unfinished_groups(using: str) -> list[dict[str, Any]]:
    """Count the unfinished in one statement, by all that says who may take them."""
    due = Q(state=State.PENDING, available_at__lte=DatabaseNow())
    later = Q(state=State.PENDING, available_at__gt=DatabaseNow())
    waiting = Q(state=State.WAITING)
    rows: Any = Delivery.objects.using(using).unfinished().order_by()
    return list(
        rows.values(*_WHOSE).annotate(
            due=Count("id", filter=due),
            seconds=SecondsFromNow(Min("available_at", filter=due)),
            scheduled=Count("id", filter=later & Q(held_by="")),
            held=Count("id", filter=later & ~Q(held_by="")),
            waiting=Count("id", filter=waiting),
            # A lane belongs to one group, so the groups' counts can be added up.
            waiting_lanes=Count("lane", distinct=True, filter=waiting),
        )
    )


def _counts(using: str) -> dict[str, int]:
    """Count what is finished, by state, and what failed lately: each up to its bound, at once."""
    rows = Delivery.objects.using(using).order_by()
    wanted = {s.value: rows.filter(state=s) for s in State if s not in UNFINISHED}
    wanted["failed lately"] = rows.filter(
        state=State.FAILED,
        finished_at__gte=DatabaseNow(-LATELY_SECONDS),
        # recreate() lets another one do what this one could not; that one counts for both.
        replaced_by__isnull=True,
        environment=settings.environment,
    )
    bounded = [_bounded(each, using) for each in wanted.values()]
    looks = (f"SELECT {n}, COUNT(*) FROM ({sql}) AS n{n}" for n, (sql, _) in enumerate(bounded))
    with connections[using].cursor() as cursor:
        cursor.execute(" UNION ALL ".join(looks), [v for _sql, values in bounded for v in values])
        found = dict(cursor.fetchall())
    return {name: found[n] for n, name in enumerate(wanted)}


def _bounded(rows: Any, using: str) -> tuple[str, Any]:
    sql, values = rows.values("id")[: COUNTED + 1].query.get_compiler(using=using).as_sql()
    return sql, values


def _states(counts: Mapping[str, int], groups: list[dict[str, Any]]) -> dict[str, int]:
    return {
        State.PENDING.value: sum(g["due"] + g["scheduled"] + g["held"] for g in groups),
        State.WAITING.value: sum(g["waiting"] for g in groups),
        **{s.value: counts[s.value] for s in State if s not in UNFINISHED},
    }


def _backlogs(groups: list[dict[str, Any]]) -> Iterator[Backlog]:
    for endpoint in sorted({group["endpoint"] for group in groups}):
        of_it = [group for group in groups if group["endpoint"] == endpoint]
        yield Backlog(
            endpoint,
            oldest_due_seconds=_age(of_it),
            **{name: sum(group[name] for group in of_it) for name in _COUNTS},
        )


def _is_stranded(group: Mapping[str, Any]) -> bool:
    return stranded_because(*(group[name] for name in _WHOSE)) is not None


def _age(groups: Iterable[Mapping[str, Any]]) -> float:
    return max([0.0, *(-float(group["seconds"] or 0) for group in groups)])


def _holders(using: str) -> Iterator[Holder]:
    pending = Delivery.objects.using(using).filter(
        state=State.PENDING, environment=settings.environment, available_at__gt=DatabaseNow()
    )
    held = pending.exclude(held_by="").order_by("held_by").values("held_by")
    for row in held.annotate(deliveries=Count("id"), seconds=SecondsFromNow(Min("available_at"))):
        yield Holder(row["held_by"], row["deliveries"], float(row["seconds"]))


def _unresolved(using: str) -> Iterator[Unresolved]:
    rows = Delivery.objects.using(using).filter(
        state=State.PENDING,
        environment=settings.environment,
        error_class__in=EndpointUnresolved.CLASSES,
    )
    groups: Any = rows.order_by("endpoint").values_list(*_WHOSE)
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for *who, number, reason in groups.annotate(n=Count("id"), why=Max("reason")):
        if stranded_because(*who) is None:
            found[who[1]].append((number, reason))
    for endpoint, told in found.items():
        yield Unresolved(endpoint, max(why for _n, why in told), sum(n for n, _why in told))


def _workers(using: str) -> Iterator[Worker]:
    rows = WorkerProcess.objects.using(using).filter(environment=settings.environment)
    for row in rows.order_by("started_at", "id").annotate(
        started=SecondsFromNow(F("started_at")), seen=SecondsFromNow(F("seen_at"))
    ):
        seen = max(0.0, -float(row.seen))
        yield Worker(
            row.name,
            alive=seen <= DEAD_SECONDS,
            started_seconds_ago=max(0.0, -float(row.started)),
            seen_seconds_ago=seen,
            concurrency=row.concurrency,
            endpoints=tuple(row.endpoints),
        )
