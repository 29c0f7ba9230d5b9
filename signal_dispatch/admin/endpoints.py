"""Pages of endpoints: whether each may be called, what waits for it, and how its calls went."""

from dataclasses import dataclass
from math import floor
from typing import Any

from django.contrib.admin.models import LogEntry
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.utils import formats
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from signal_dispatch import endpoint_names, faring, showing
from signal_dispatch.admin import deeds, outboxes
from signal_dispatch.admin.charts import chart_of
from signal_dispatch.admin.deed_forms import SPANS
from signal_dispatch.admin.page import Page
from signal_dispatch.endpoints import endpoints
from signal_dispatch.faring import Bar, Calls, Queue
from signal_dispatch.models import storable
from signal_dispatch.recent_calls import CLASSES, LOOKED_AT, Sample, day_of, sample_of
from signal_dispatch.spans import span

#: How many endpoints a page lists, and up to how many of anything it counts for each.
LISTED, COUNTED_IN_LIST, COUNTED_ALONE = 25, 1_000, 10_000
SHOWN_DEEDS = 10

# Told by the shape and the word as well as by the colour.
_KINDS = {
    "open": ("sd-delivered", "✔", gettext_lazy("open")),
    "paused": ("sd-waits", "‖", gettext_lazy("paused")),
    "breaker": ("sd-failed", "✖", gettext_lazy("breaker open")),
    "disabled": ("sd-cancelled", "⊘", gettext_lazy("disabled")),
    "gone": ("sd-failed", "?", gettext_lazy("not in the settings")),
}
_STEPS = ("≤ 100 ms", "≤ 1 s", "≤ 10 s", "> 10 s")


@dataclass(frozen=True, slots=True)
class Shown:
    """One endpoint as pages show it."""

    alias: str
    query: str
    bar: Bar
    queue: Queue
    calls: dict[str, Calls]

    @property
    def host(self) -> str:
        """Where it is; nothing else of its URL may be shown."""
        endpoint = endpoints.find(self.alias)
        if endpoint is None:
            return ""
        if endpoint.resolver:
            return "(RESOLVER)"
        return endpoint.host or _("no URL: calls of the site's own")

    @property
    def pill(self) -> Any:
        """Whether it may be called."""
        look, shape, word = _KINDS[self.bar.kind]
        pattern = '<span class="sd-pill {}"><span aria-hidden="true">{}</span> {}</span>'
        return format_html(pattern, look, shape, word)

    @property
    def since(self) -> Any:
        """Since when it is paused, or its breaker open."""
        return showing.relative(min(self.bar.since_in or 0.0, 0.0), self.bar.since)

    @property
    def probe(self) -> str:
        """When a call tries whether it is well."""
        return span(self.bar.seconds_left) if self.bar.seconds_left else ""

    @property
    def counts(self) -> dict[str, str]:
        """What waits, where "more than" stands for what was not counted to its end."""
        names = ("due", "later", "waiting", "lanes")
        return {name: _counted(getattr(self.queue, name), self.queue.most) for name in names}

    @property
    def oldest(self) -> str:
        """How long the one that is due longest has been due."""
        return span(self.queue.oldest_due_seconds) if self.queue.due else "-"

    @property
    def rates(self) -> dict[str, str]:
        """The shares of attempts that delivered."""
        return {name: _percent(calls) for name, calls in self.calls.items()}

    @property
    def half_within(self) -> str:
        """Within which time half of the day's calls were over."""
        return self._within(50)

    @property
    def most_within(self) -> str:
        """The same of 95 in a hundred."""
        return self._within(95)

    def _within(self, percent: float) -> str:
        step = self.calls["day"].within(percent)
        return "-" if step is None else _STEPS[step]


def _counted(number: int, most: int) -> str:
    return str(number) if number <= most else _("more than %d") % most


def _percent(calls: Calls) -> str:
    """Write a share; never one that reads as all where it was not all."""
    if calls.percent is None:
        return "-"
    return f"{formats.number_format(floor(10 * calls.percent) / 10, 1)} %"


def shown(using: str, aliases: list[str], most: int) -> list[Shown]:
    """Return how these endpoints fare, by four statements."""
    bars, queues = faring.bars_of(using, aliases), faring.queues_of(using, aliases, most)
    calls = faring.calls_of(using, aliases)
    return [
        Shown(a, outboxes.query_for(using, endpoint=a), bars[a], queues[a], calls[a])
        for a in aliases
    ]


class Endpoints(Page):
    """All endpoints, a line each."""

    name, title = "endpoints", gettext_lazy("Endpoints")

    def context(self, request: HttpRequest, using: str) -> dict[str, Any]:
        """Return the endpoints of one page of the list."""
        found = Paginator(endpoint_names.names(using), LISTED).get_page(request.GET.get("p"))
        return {
            "listed": found,
            "rows": shown(using, list(found), COUNTED_IN_LIST),
            "families": endpoint_names.families(),
            "most_found": endpoint_names.MOST_FOUND,
            "turn": outboxes.query_for(using, p="") or "?p=",
        }


class OneEndpoint(Page):
    """One endpoint, and what may be done about it."""

    name, title = "endpoint", gettext_lazy("Endpoint")
    here = "endpoints"

    def show(self, request: HttpRequest, using: str, **more: Any) -> HttpResponse:
        """Show the page; raises ``Http404`` for an endpoint that nobody knows."""
        alias = _alias_of(request)
        if not endpoint_names.is_known(using, alias):
            raise Http404(f"Neither settings nor deliveries name an endpoint {alias!r}.")
        about = {
            "title": alias,
            "alias": alias,
            "outboxes": outboxes.choices(using, endpoint=alias),
            "own_query": outboxes.query_for(using, endpoint=alias),
        }
        return super().show(request, using, **about, **more)

    def context(self, request: HttpRequest, using: str) -> dict[str, Any]:
        """Return all there is to say of the endpoint."""
        alias = _alias_of(request)
        (row,) = shown(using, [alias], COUNTED_ALONE)
        day, sample = day_of(using, alias), sample_of(using, alias)
        return {
            "row": row,
            "chart": chart_of(day.hours),
            "classes": [(name, day.answers[field]) for field, name in CLASSES.items()],
            "sample": sample,
            "latency": _latency(sample),
            "looked_at": LOOKED_AT,
            "limits": _limits(alias),
            "offered": deeds.offered(request, row.bar, alias),
            "spans": SPANS,
            "deeds": _deeds(using, alias),
        }

    def post(self, request: HttpRequest, using: str) -> HttpResponse:
        """Ask whether it is meant; if that was confirmed, do it."""
        alias = _alias_of(request)
        if not endpoint_names.is_known(using, alias):
            raise Http404(f"Neither settings nor deliveries name an endpoint {alias!r}.")
        return deeds.Asked(self, request, using, alias).answer()


def _alias_of(request: HttpRequest) -> str:
    return storable(request.GET.get("endpoint", ""))[:150]


def _latency(sample: Sample) -> list[tuple[str, str]]:
    numbers = (("p50", sample.p50), ("p95", sample.p95))
    return [(name, "-" if ms is None else f"{ms} ms") for name, ms in numbers]


def _limits(alias: str) -> list[tuple[str, str]]:
    """Return the settings that explain how it fares; nothing of the rest is told."""
    endpoint = endpoints.find(alias)
    if endpoint is None or endpoint.resolver:
        return []
    breaker = endpoint.breaker
    return [
        ("MAX_CONCURRENCY", str(endpoint.max_concurrency)),
        ("RATE", "{}/{:g} s".format(*endpoint.rate) if endpoint.rate else "-"),
        ("BREAKER", f"{breaker.attempts}, {breaker.share:.0%}" if breaker else "-"),
        ("DEADLINE", f"{endpoint.deadline:g} s"),
        ("RETRY", _("%d attempts") % endpoint.retry.attempts),
        ("BACKEND", endpoint.backend),
    ]


def _deeds(using: str, alias: str) -> list[LogEntry]:
    """Return what people did about it, the last first."""
    kind = {"content_type__app_label": "signal_dispatch", "content_type__model": "endpointstate"}
    rows = LogEntry.objects.filter(**kind, object_id=alias).select_related("user")
    rows = outboxes.entries_of(using, rows)
    return list(rows.order_by("-action_time")[:SHOWN_DEEDS])
