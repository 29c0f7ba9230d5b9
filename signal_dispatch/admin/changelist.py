"""The list of deliveries: its cost does not grow with the table."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, PAGE_VAR, SEARCH_VAR, ChangeList
from django.core.paginator import InvalidPage
from django.http import HttpRequest

from signal_dispatch.admin import cells, outboxes
from signal_dispatch.admin.days import Days, days_of
from signal_dispatch.conf import settings
from signal_dispatch.explaining import timed, why_stranded
from signal_dispatch.faring import bars_of
from signal_dispatch.models import UNFINISHED
from signal_dispatch.selecting import Selection
from signal_dispatch.status import COUNTED

#: Where no index leads to what is asked for, so many rows are looked at, and a link goes on. With
#: a state, the index on it holds all that is looked at.
LOOKED_AT, LOOKED_AT_BY_STATE = 25_000, 100_000
#: Parameters of the list that are no part of what is selected.
BEFORE_VAR = "before"
_OWN = (BEFORE_VAR, outboxes.USING_VAR, PAGE_VAR, ERROR_FLAG)


def selection_of(parameters: Mapping[str, str]) -> Selection:
    """Read what a list's address selects; raises ``IncorrectLookupParameters``."""
    try:
        return Selection.of({k: v for k, v in parameters.items() if k not in _OWN})
    except ValueError as error:
        raise IncorrectLookupParameters(str(error)) from error


class DeliveryChangeList(ChangeList):
    """The newest deliveries that match, in steps that cost the same in a table of any size.

    One statement finds up to ``COUNTED`` ids: they are the count and the pages. What is older, or
    beyond the rows that were looked at, is reached by a link.
    """

    list_filter: Any
    model_admin: Any
    root_queryset: Any

    def get_queryset(self, request: HttpRequest, exclude_parameters: Any = None) -> Any:
        """Return all that match: what an action for all of them means."""
        self.selection = selection_of(request.GET.dict())
        self.before = _number(request.GET.get(BEFORE_VAR))
        self.filter_specs = list(self._specs(request))
        self.has_filters = bool(self.filter_specs)
        self.has_active_filters = bool(self.selection.given().keys() - {SEARCH_VAR})
        names = self.selection.given().keys() - {SEARCH_VAR}
        self.clear_all_filters_qs = self.get_query_string(remove=sorted(names))
        return self.selection.narrow(self.root_queryset).order_by("-pk")

    def _specs(self, request: HttpRequest) -> Iterable[Any]:
        parameters = dict(request.GET.lists())
        for made in self.list_filter:
            spec = made(request, parameters, self.model, self.model_admin)
            if spec.has_output():
                yield spec

    def get_query_string(self, new_params: Any = None, remove: Any = None) -> str:
        """Begin with the newest again whenever something else is asked for."""
        turning = {PAGE_VAR, BEFORE_VAR} & set(new_params or ())
        removed = [*(remove or ()), *([] if turning else [BEFORE_VAR])]
        return super().get_query_string(new_params, removed)

    def get_results(self, request: HttpRequest) -> None:
        """Find the ids, and read the rows of this page."""
        ids = self._ids()
        self.has_more = len(ids) > COUNTED
        self.paginator = self.model_admin.get_paginator(request, ids[:COUNTED], self.list_per_page)
        try:
            page = list(self.paginator.page(self.page_num).object_list)
        except InvalidPage as error:
            raise IncorrectLookupParameters(str(error)) from error
        self.result_list = list(
            timed(self.root_queryset.filter(pk__in=page)).defer("body", "headers").order_by("-pk")
        )
        self._note_bars()
        for row in self.result_list:  # the cells know of no request
            row.object_link = cells.object_link(row, self.model_admin.admin_site, request)
        self.result_count = self.paginator.count
        # Beside the box, the number of results is told where something was searched for.
        self.full_result_count = None if self.query else self.result_count
        self.show_full_result_count = False
        self.show_admin_actions, self.can_show_all = True, False
        self.multi_page = self.paginator.num_pages > 1
        self._link_back(ids)

    def _ids(self) -> list[int]:
        """Find the newest that match, but for a bound one more than are counted."""
        led, passed = self.selection.parted()
        rows = led.narrow(self.root_queryset).order_by("-pk")
        if self.before is not None:
            rows = rows.filter(pk__lt=self.before)
        ids = rows.values_list("pk", flat=True)
        self.looked_back_to: int | None = None
        if passed:
            self.looked_at = LOOKED_AT_BY_STATE if self.selection.state else LOOKED_AT
            self.looked_back_to = ids[self.looked_at : self.looked_at + 1].first()
            ids = ids.filter(**passed)
        if self.looked_back_to is not None:
            ids = ids.filter(pk__gt=self.looked_back_to)
        return list(ids[: COUNTED + 1])

    def _note_bars(self) -> None:
        """Note at each row that waits why nobody here takes it, or what bars its endpoint."""
        waiting = [row for row in self.result_list if row.state in UNFINISHED]
        for row in waiting:
            in_hand = row.held_by and (row.due_in or 0) > 0
            row.stranded = "" if in_hand else why_stranded(row)
        mine = [row for row in waiting if row.environment == settings.environment]
        bars = bars_of(self.root_queryset.db, sorted({row.endpoint for row in mine}))
        for row in mine:
            row.bar = bars[row.endpoint]

    def _link_back(self, ids: list[int]) -> None:
        """Say where to go on."""
        self.older_before: int | None = None
        if self.has_more:
            self.older_before = ids[COUNTED - 1]
        elif self.looked_back_to is not None:
            self.older_before = self.looked_back_to + 1
        if self.older_before is not None:
            self.older_query = self.get_query_string({BEFORE_VAR: self.older_before})
        self.newest_query = self.get_query_string()

    def url_for_result(self, result: Any) -> str:
        """Return the address of a delivery's page, in this outbox."""
        return str(super().url_for_result(result)) + outboxes.query_for(self.root_queryset.db)

    def outboxes(self) -> list[dict[str, Any]]:
        """Return the outboxes to choose from."""
        return outboxes.choices(self.root_queryset.db)

    def outbox_query(self) -> str:
        """Return what an address needs to name this outbox."""
        return outboxes.query_for(self.root_queryset.db)

    def days(self) -> Days:
        """Return the links to years, months or days."""
        return days_of(self)


def is_number(text: str) -> bool:
    """Say whether a text from outside may be the number of a row."""
    return text.isascii() and text.isdigit() and len(text) < 19


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    if not is_number(text):
        raise IncorrectLookupParameters(f"{text!r} is no number of a delivery.")
    return int(text)
