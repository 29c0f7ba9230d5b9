"""Links from years to months to days, without a look at the rows between the first and the last."""

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.utils import formats, timezone
from django.utils.translation import gettext as _


@dataclass(frozen=True, slots=True)
class Period:
    """A year, a month, a day, or any other span of days, both ends included."""

    since: date
    until: date

    @classmethod
    def year(cls, year: int) -> "Period":
        """Return a year."""
        return cls(date(year, 1, 1), date(year, 12, 31))

    @classmethod
    def month(cls, year: int, month: int) -> "Period":
        """Return a month."""
        return cls(date(year, month, 1), date(year, month, monthrange(year, month)[1]))

    @property
    def level(self) -> str:
        """Say what it is: ``year``, ``month``, ``day``, or something else."""
        first = self.since
        if self.since == self.until:
            return "day"
        if self == Period.month(first.year, first.month):
            return "month"
        return "year" if self == Period.year(first.year) else ""

    def __str__(self) -> str:
        level = self.level
        if level == "year":
            return str(self.since.year)
        return formats.date_format(
            self.since, "YEAR_MONTH_FORMAT" if level == "month" else "MONTH_DAY_FORMAT"
        )

    def wider(self) -> "Period | None":
        """Return what it is a part of."""
        first = self.since
        if self.level == "day":
            return Period.month(first.year, first.month)
        return Period.year(first.year) if self.level == "month" else None

    def parts(self, first: date, last: date) -> Iterator["Period"]:
        """Yield its parts, as far as they lie between the first day and the last."""
        for part in self._parts():
            if part.until >= first and part.since <= last:
                yield part

    def _parts(self) -> Iterator["Period"]:
        year, month = self.since.year, self.since.month
        if self.level == "year":
            yield from (Period.month(year, each) for each in range(1, 13))
        elif self.level == "month":
            days = (date(year, month, each) for each in range(1, self.until.day + 1))
            yield from (Period(day, day) for day in days)


@dataclass(frozen=True, slots=True)
class Days:
    """What stands above the list: where one is, the way back, and the parts to go on to."""

    here: str
    back: tuple[str, str] | None
    parts: list[tuple[str, str]]


def days_of(changelist: Any) -> Days:
    """Return the links of a list of deliveries."""
    here, ends = _chosen(changelist), _ends(changelist)
    if ends is None:
        return Days("", None, [])
    first, last = ends
    parts = _narrowest(first, last) if here is None else list(here.parts(first, last))
    back = None
    if here is not None:
        wider = here.wider()
        back = (_query(changelist, wider), str(wider) if wider else _("All dates"))
    links = [(_query(changelist, part), str(part)) for part in parts]
    return Days(str(here) if here and here.level == "day" else "", back, links)


def _narrowest(first: date, last: date) -> list[Period]:
    """Return the years; or the months or days at once, where all is within one."""
    if first.year != last.year:
        return [Period.year(each) for each in range(first.year, last.year + 1)]
    whole = Period.year(first.year)
    if first.month == last.month:
        whole = Period.month(first.year, first.month)
    return list(whole.parts(first, last))


def _chosen(changelist: Any) -> Period | None:
    selection = changelist.selection
    if selection.since is None or selection.until is None:
        return None
    try:
        period = Period(date.fromisoformat(selection.since), date.fromisoformat(selection.until))
    except ValueError:  # moments within a day
        return None
    return period if period.level else None


def _ends(changelist: Any) -> tuple[date, date] | None:
    """Return the days of the first delivery and of the last."""
    rows = changelist.root_queryset.values_list("created_at", flat=True)
    first, last = rows.order_by("pk").first(), rows.order_by("-pk").first()
    return (_day(first), _day(last)) if first and last else None


def _day(moment: datetime) -> date:
    return (timezone.localtime(moment) if timezone.is_aware(moment) else moment).date()


def _query(changelist: Any, period: Period | None) -> str:
    chosen: dict[str, str | None] = {"since": None, "until": None}
    if period is not None:
        chosen = {"since": period.since.isoformat(), "until": period.until.isoformat()}
    query: str = changelist.get_query_string(chosen)
    return query
