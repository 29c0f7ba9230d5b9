"""What the list of deliveries is filtered by. No choice is found by reading through the table."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from signal_dispatch.conf import settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import Delivery, State
from signal_dispatch.outcomes import ERROR_CLASSES
from signal_dispatch.registry import registry
from signal_dispatch.selecting import ANY_UNFINISHED

#: How many of the newest deliveries are looked at for values that code and settings don't know.
_LOOKED_AT = 1000
_COLUMNS = ("environment", "endpoint", "dispatch", "event", "error_class")


class Found:
    """The values that stand in the newest rows, found by two statements for all filters."""

    def __init__(self, rows: QuerySet[Delivery]) -> None:
        self._rows = rows

    @cached_property
    def _values(self) -> list[tuple[str, ...]]:
        ids = self._rows.order_by("-pk").values_list("pk", flat=True)
        since = next(iter(ids[_LOOKED_AT : _LOOKED_AT + 1]), 0)
        rows = self._rows.filter(pk__gte=since).order_by()
        return list(rows.values_list(*_COLUMNS).distinct())

    def of(self, column: str) -> set[str]:
        """Return the values of one column."""
        place = _COLUMNS.index(column)
        return {values[place] for values in self._values}


class ValueFilter(admin.SimpleListFilter):
    """Filter by one column. The list itself applies it, as part of its ``Selection``."""

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        """Return what code and settings know, what stands in the newest rows, what is asked for."""
        found: Found = model_admin.found(request)
        column = str(self.parameter_name)
        chosen = self.value()
        values = {*self.known(), *found.of(column), *([] if chosen is None else [chosen])}
        return [(value, value) for value in sorted(values - {""})]

    def known(self) -> Iterable[str]:
        """Return the values that need no look."""
        return ()

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Leave the rows as they are: the list's selection does it."""
        return queryset


class StateFilter(ValueFilter):
    """By state."""

    title, parameter_name = _("state"), "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        """Return what is not finished, as one, and all states."""
        return [(ANY_UNFINISHED, _("unfinished")), *State.choices]


class EndpointFilter(ValueFilter):
    """By endpoint."""

    title, parameter_name = _("endpoint"), "endpoint"

    def known(self) -> Iterable[str]:
        """Return those of the settings."""
        return endpoints


class DispatchFilter(ValueFilter):
    """By dispatch."""

    title, parameter_name = _("dispatch"), "dispatch"

    def known(self) -> Iterable[str]:
        """Return the registered ones."""
        return (dispatch.name for dispatch in registry)


class EventFilter(ValueFilter):
    """By event."""

    title, parameter_name = _("event"), "event"

    def known(self) -> Iterable[str]:
        """Return those that dispatches declare."""
        return (str(event) for dispatch in registry for event in dispatch.events)


class ErrorClassFilter(ValueFilter):
    """By what went wrong."""

    title, parameter_name = _("error class"), "error_class"

    def known(self) -> Iterable[str]:
        """Return those that the package gives."""
        return ERROR_CLASSES


class EnvironmentFilter(ValueFilter):
    """By environment; shown where there are several."""

    title, parameter_name = _("environment"), "environment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        """Return nothing where all rows are of this environment."""
        found: Found = model_admin.found(request)
        values = found.of("environment") | {settings.environment}
        if len(values) < 2 and self.value() is None:
            return []
        return [(value, value or _("(no name)")) for value in sorted(values)]


class RecordedFilter(admin.SimpleListFilter):
    """By the day of the record."""

    title, parameter_name = _("day of the record"), "since"

    def __init__(self, request: HttpRequest, params: dict[str, Any], *args: Any) -> None:
        self.until = params.pop("until", [None])[-1]
        super().__init__(request, params, *args)

    def lookups(self, request: HttpRequest, model_admin: Any) -> Iterable[tuple[str, Any]]:
        """Return the spans that people ask for most."""
        today = timezone.localdate() if timezone.is_aware(timezone.now()) else _today()
        return [
            (today.isoformat(), _("Today")),
            ((today - timedelta(days=1)).isoformat(), _("Since yesterday")),
            ((today - timedelta(days=6)).isoformat(), _("Past 7 days")),
            ((today - timedelta(days=29)).isoformat(), _("Past 30 days")),
        ]

    def choices(self, changelist: Any) -> Any:
        """Yield the spans; each takes the place of whatever days were chosen."""
        names = ["since", "until"]
        yield {
            "selected": self.value() is None and self.until is None,
            "query_string": changelist.get_query_string(remove=names),
            "display": _("Any date"),
        }
        for day, title in self.lookup_choices:
            yield {
                "selected": self.value() == day and self.until is None,
                "query_string": changelist.get_query_string({"since": day}, ["until"]),
                "display": title,
            }

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        """Leave the rows as they are: the list's selection does it."""
        return queryset


def _today() -> Any:
    return timezone.now().date()


FILTERS = (
    *(StateFilter, EndpointFilter, DispatchFilter, EventFilter, ErrorClassFilter),
    *(RecordedFilter, EnvironmentFilter),
)
