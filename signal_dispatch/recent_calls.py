"""Say how the calls to one endpoint went within a day: by hours, by answers, how long they took."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import connections
from django.db.models import Value
from django.utils import timezone

from signal_dispatch.clocks import DatabaseNow, SecondsFromNow
from signal_dispatch.conf import settings
from signal_dispatch.faring import DAY_SECONDS
from signal_dispatch.models import Attempt, Delivery, EndpointMinute

#: Of the deliveries that went well at once, of those that did not, and of those that are tried
#: still, the attempts of so many are looked at, the newest.
LOOKED_AT = 500
#: Behind one that fails very many may wait, none of which has an attempt: of how many rows.
_PASSED = 10 * LOOKED_AT
HOURS = 24
#: Names of the fields of a minute, and how a person calls such answers.
CLASSES = {
    "answered_2xx": "2xx",
    "answered_3xx": "3xx",
    "answered_4xx": "4xx",
    "answered_5xx": "5xx",
    "unanswered": "",
}


@dataclass(frozen=True, slots=True)
class Hour:
    """The attempts of one hour by the clock, in the time zone of the site."""

    begins: datetime
    delivered: int
    failed: int


@dataclass(frozen=True, slots=True)
class Day:
    """The hours of the last day, the oldest first, and its answers by their class."""

    hours: tuple[Hour, ...]
    answers: dict[str, int]


@dataclass(frozen=True, slots=True)
class Sample:
    """Some of the last day's attempts: what came of them, most often first, and milliseconds."""

    attempts: int
    results: tuple[tuple[str, int], ...]
    p50: int | None
    p95: int | None
    is_whole: bool


def day_of(using: str, alias: str) -> Day:
    """Sum up the minutes of the last day."""
    rows: Any = EndpointMinute.objects.using(using).filter(
        environment=settings.environment, endpoint=alias, minute__gt=DatabaseNow(-DAY_SECONDS)
    )
    columns = ("seconds", "attempts", "delivered", *CLASSES)
    found = list(rows.annotate(seconds=SecondsFromNow("minute")).values_list(*columns))
    now = timezone.now()
    now = timezone.localtime(now) if timezone.is_aware(now) else now
    past = timedelta(minutes=now.minute, seconds=now.second, microseconds=now.microsecond)
    delivered, failed, answers = Counter[int](), Counter[int](), Counter[str]()
    for seconds, attempts, well, *classes in found:
        # From the middle of the minute, so that clocks that differ a little count alike.
        age = -float(seconds) - 30 - past.total_seconds()
        hour = min(HOURS - 1, int(age // 3600) + 1) if age > 0 else 0
        delivered[hour] += well
        failed[hour] += attempts - well
        answers.update(dict(zip(CLASSES, classes, strict=True)))
    hours = (
        Hour(_before(now - past, number), delivered[number], failed[number])
        for number in reversed(range(HOURS))
    )
    return Day(tuple(hours), {name: answers[name] for name in CLASSES})


def _before(moment: datetime, hours: int) -> datetime:
    """Go back by hours that passed, also where clocks were changed meanwhile."""
    if timezone.is_naive(moment):
        return moment - timedelta(hours=hours)
    utc = moment.astimezone(timezone.get_fixed_timezone(0)) - timedelta(hours=hours)
    return timezone.localtime(utc)


def sample_of(using: str, alias: str) -> Sample:
    """Look at some of the last day's attempts."""
    looks, values = [], []
    for rows in _newest(using, alias):
        newest = rows.values("id", "state")[:_PASSED]
        sql, given = newest.query.get_compiler(using=using).as_sql()
        some = f"SELECT id FROM ({sql}) AS newest WHERE state <> 'waiting' LIMIT {LOOKED_AT}"
        looks.append(f"SELECT id FROM ({some}) AS looked")
        values += given
    connection = connections[using]
    table = connection.ops.quote_name(Attempt._meta.db_table)
    since, nothing = DatabaseNow(-DAY_SECONDS).as_sql(None, connection)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT a.status_code, a.error_class, a.duration_ms, a.delivery_id FROM {table} a"
            f" JOIN ({' UNION ALL '.join(looks)}) AS d ON a.delivery_id = d.id"
            f" WHERE a.started_at > {since}",
            [*values, *nothing],
        )
        found = cursor.fetchall()
    whole = len({row[3] for row in found}) < LOOKED_AT
    results = Counter(str(status or error or "") for status, error, _ms, _id in found)
    # What never came took as long as the settings let it.
    answered = sorted(ms for status, _error, ms, _id in found if status is not None)
    return Sample(
        len(found),
        tuple(sorted(results.items(), key=lambda each: (-each[1], each[0]))),
        percentile(answered, 50),
        percentile(answered, 95),
        whole,
    )


def _newest(using: str, alias: str) -> Iterator[Any]:
    """Yield rows as the claim's index goes, from its end."""
    rows = Delivery.objects.using(using).filter(environment=settings.environment, endpoint=alias)
    for retried, settled in ((False, True), (True, True), (True, False)):
        # A plain False would be written as NOT, which is no place in an index.
        kind = rows.filter(retried=Value(retried), available_at__isnull=settled)
        yield kind.order_by("-available_at", "-id")


def percentile(numbers: Sequence[int], percent: int) -> int | None:
    """Return the number that so many percent of these sorted ones do not exceed."""
    return numbers[max(0, -(-len(numbers) * percent // 100) - 1)] if numbers else None
