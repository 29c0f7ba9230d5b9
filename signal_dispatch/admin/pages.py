"""Pages beside the list: how the outbox stands, and what the dispatches declare."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from signal_dispatch import repair_steps
from signal_dispatch.admin import outboxes
from signal_dispatch.admin.actions import is_allowed
from signal_dispatch.admin.changelist import is_number
from signal_dispatch.admin.endpoints import Endpoints, OneEndpoint
from signal_dispatch.admin.page import Page
from signal_dispatch.faring import throughput
from signal_dispatch.interventions import INTERVENTIONS
from signal_dispatch.limits import Limits
from signal_dispatch.mappings import LOOKED_AT, mappings
from signal_dispatch.models import Repair, State
from signal_dispatch.selecting import Selection
from signal_dispatch.status import Status, counted, status_of

#: How many repairs are shown, the newest first.
SHOWN_REPAIRS = 10


class Overview(Page):
    """How the outbox stands, at a glance."""

    name, title = "overview", gettext_lazy("Overview")

    def context(self, request: HttpRequest, using: str) -> dict[str, Any]:
        """Return the status, what is not well, and the work that is under way."""
        status = status_of(using)
        backlogs = status.backlogs
        sums = {
            name: sum(getattr(backlog, name) for backlog in backlogs)
            for name in ("due", "scheduled", "held", "waiting", "waiting_lanes")
        }
        return {
            "status": status,
            "problems": Limits().problems(status),
            "sums": sums,
            "states": {name: counted(number) for name, number in status.states.items()},
            "failed_lately": counted(status.failed_lately),
            "throughput": throughput(using),
            "alive": sum(worker.alive for worker in status.workers),
            "repairs": self._repairs(request, using),
            **_left_alone(status, using),
            **_unresolved(status, using),
        }

    def _repairs(self, request: HttpRequest, using: str) -> list[dict[str, Any]]:
        rows = Repair.objects.using(using).order_by("-pk")[:SHOWN_REPAIRS]
        return [
            {
                "row": row,
                "label": _label(row),
                "filter": _filter(row),
                "expected": int(row.expected) if row.expected.isdigit() else None,
                "may_stop": row.finished_at is None and _may(request, row),
            }
            for row in rows
        ]

    def post(self, request: HttpRequest, using: str) -> HttpResponse:
        """Stop a repair."""
        pk = request.POST.get("stop", "")
        repair = Repair.objects.using(using).filter(pk=int(pk) if is_number(pk) else 0).first()
        if repair is not None:
            if not _may(request, repair):
                raise PermissionDenied
            user: Any = request.user
            if repair_steps.stop(repair.pk, using, by=user.get_username()):
                self.admin.log_change(request, repair, _("Stopped."))
                messages.success(request, _("%s is stopped.") % _label(repair))
        return redirect(request.get_full_path())


class Dispatches(Page):
    """What the dispatches declare, and how each fares."""

    name, title = "dispatches", gettext_lazy("Dispatches")

    def context(self, request: HttpRequest, using: str) -> dict[str, Any]:
        """Return the mappings."""
        return {"mappings": mappings(using), "looked_at": LOOKED_AT}


def _left_alone(status: Status, using: str) -> dict[str, Any]:
    """Return what nobody here takes, with the address of a list of it."""
    unnamed = _("(no name)")
    shown = [
        {
            "number": each.deliveries,
            "what": f"{each.kind} {each.name or unnamed}",
            "why": each.advice,
            "query": outboxes.query_for(using, **each.filter),
        }
        for each in status.stranded
    ]
    return {"left_alone": shown, "number_left_alone": sum(each["number"] for each in shown)}


def _unresolved(status: Status, using: str) -> dict[str, Any]:
    """Return what waits until its RESOLVER names its endpoint, with the address of a list of it."""
    shown = [
        {
            "number": each.deliveries,
            "what": each.endpoint,
            "why": each.reason,
            "query": outboxes.query_for(using, state=State.PENDING.value, endpoint=each.endpoint),
        }
        for each in status.unresolved
    ]
    return {"unresolved": shown, "number_unresolved": sum(each["number"] for each in shown)}


def _label(repair: Repair) -> str:
    intervention = INTERVENTIONS.get(repair.what)
    return str(intervention.label) if intervention else repair.what


def _filter(repair: Repair) -> dict[str, Any]:
    """Return what a repair is about; as it stands where this code reads it as no filter."""
    try:
        return dict(Selection.of(repair.selection).told())
    except (ValueError, TypeError, AttributeError):
        stored: dict[str, Any] = repair.selection
        return stored


def _may(request: HttpRequest, repair: Repair) -> bool:
    intervention = INTERVENTIONS.get(repair.what)
    return intervention is not None and is_allowed(request, intervention)


PAGES: tuple[Callable[[Any], Page], ...] = (Overview, Endpoints, OneEndpoint, Dispatches)
