"""What a person does about deliveries: asked once more, then done, and noted in the admin's log."""

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.admin import options
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html_join
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from signal_dispatch import leaving
from signal_dispatch.admin import copies, outboxes
from signal_dispatch.admin.changelist import selection_of
from signal_dispatch.admin.target_form import TargetForm
from signal_dispatch.horizons import Horizon
from signal_dispatch.interventions import INTERVENTIONS, Intervention, Options, meant
from signal_dispatch.models import Delivery, Repair
from signal_dispatch.repair_steps import ask_for
from signal_dispatch.selecting import Selection
from signal_dispatch.status import COUNTED, counted

#: How many deliveries are named on the page that asks.
_NAMED = 10
#: The pages that a session confirmed, and how many of them are kept in mind.
_CONFIRMED, _REMEMBERED = "signal_dispatch_confirmed", 20


def is_allowed(request: Any, intervention: Intervention) -> bool:
    """Say whether the person may do that."""
    return bool(request.user.has_perm(f"signal_dispatch.{intervention.permission}"))


def actions_for(request: HttpRequest) -> dict[str, Any]:
    """Return what the person may do, as the admin lists actions."""
    return {
        name: _listed(_action(intervention), name, intervention.label)
        for name, intervention in INTERVENTIONS.items()
        if is_allowed(request, intervention)
    }


def _listed(action: Callable[..., HttpResponse], name: str, label: Any) -> Any:
    """Return an action as Django 6.1 keeps it, and as a tuple before."""
    kind: Any = getattr(options, "Action", None)
    if kind is None:
        return action, name, label
    places = [options.ActionLocation.CHANGE_LIST]
    return kind(
        func=action, name=name, description=label, plural_description=label, locations=places
    )


def _action(intervention: Intervention) -> Callable[..., HttpResponse]:
    def action(model_admin: Any, request: HttpRequest, rows: Any) -> HttpResponse:
        return Asked(model_admin, request, rows, intervention).answer()

    return action


class Asked:
    """An intervention that somebody asked for: for chosen rows, or for all that match."""

    def __init__(
        self, model_admin: Any, request: HttpRequest, rows: Any, intervention: Intervention
    ) -> None:
        self._admin = model_admin
        self._request: Any = request
        self._rows = rows
        self._intervention = intervention
        self._across = request.POST.get("select_across") == "1"

    def answer(self) -> HttpResponse:
        """Ask whether it is meant; if it was confirmed, do it."""
        form = None
        horizon = Horizon.posted(self._request.POST, *self._purpose)
        if self._intervention.name == "repoint":
            affected = self._intervention.affected(self._rows)
            affected = horizon.narrow(affected) if horizon else affected
            form = TargetForm(affected, self._request.POST if horizon else None)
        if horizon is None or (form and not form.is_valid()):
            return self._ask(form)
        options = form.options() if form else {}
        if not self._intervention.is_repeatable and not _is_first(self._request):
            text = _("That was confirmed before, and is not done once more.")
            self._admin.message_user(self._request, text, messages.WARNING)
        elif self._across:
            self._have_it_done(horizon, options)
        else:
            self._do(horizon, options)
        return HttpResponseRedirect(self._back())

    @property
    def _purpose(self) -> tuple[str, str]:
        return self._intervention.name, self._rows.db

    def _ask(self, form: TargetForm | None) -> HttpResponse:
        horizon = Horizon.of(self._rows.db)
        affected = self._intervention.affected(self._rows)
        named = affected.defer("body", "headers").order_by("-pk")[:_NAMED]
        context = {
            **self._admin.admin_site.each_context(self._request),
            "title": self._intervention.label,
            "opts": self._admin.opts,
            "media": self._admin.media,
            "intervention": self._intervention,
            "across": self._across,
            "filters": selection_of(self._request.GET.dict()).told() if self._across else {},
            "matching": counted(self._rows[: COUNTED + 1].count()),
            "affected": counted(affected[: COUNTED + 1].count()),
            "named": list(named),
            "form": form,
            "horizon": horizon.as_text(*self._purpose),
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
            "chosen": self._request.POST.getlist(ACTION_CHECKBOX_NAME),
            "back": self._back(),
        }
        self._request.current_app = self._admin.admin_site.name
        return TemplateResponse(
            self._request, "admin/signal_dispatch/delivery/confirm.html", context
        )

    def _back(self) -> str:
        here = str(self._request.get_full_path())
        back = self._request.POST.get("back", here)
        host = {self._request.get_host()}
        return back if url_has_allowed_host_and_scheme(back, host) else here

    def _do(self, horizon: Horizon, options: dict[str, str]) -> None:
        intervention, user = self._intervention, self._request.user
        rows = meant(intervention, self._rows, horizon)
        affected = list(intervention.affected(rows).defer("body", "headers"))
        left = leaving.left_alone(intervention.name, rows, affected)
        if beyond := self._rows.count() - rows.count():
            left[_("changed after you were asked")] = beyond
        with copies.recorded_here() as new:
            changed = intervention.run(rows, user.get_username(), options)
        if changed:
            note = outboxes.noted(self._rows.db, self._note(changed, len(affected), options))
            LogEntry.objects.log_actions(user.pk, affected, CHANGE, note)
        if changed < len(affected):
            left[str(leaving.REASONS[intervention.name].late)] = len(affected) - changed
        link = ""
        if len(affected) == len(new) == 1:
            link = copies.link_to(new[0], rows.db, self._admin.admin_site.name)
        self._say(changed, leaving.sentence(left), link)

    def _note(self, changed: int, affected: int, options: dict[str, str]) -> str:
        if changed < affected:  # and which of them were is known to nobody
            text = _("%(label)s: asked for, and done to %(changed)d of %(affected)d deliveries.")
            label = self._intervention.label
            return text % {"label": label, "changed": changed, "affected": affected}
        # The model that they had to be of is that of the target.
        target = ", ".join(dict.fromkeys(options.values()))
        return str(self._intervention.done) % {"target": target}

    def _have_it_done(self, horizon: Horizon, options: dict[str, str]) -> None:
        selection = selection_of(self._request.GET.dict())
        using = self._rows.db
        have_done(self._request, self._intervention, selection, using, horizon, options)
        text = _("%(label)s: begun for all that match. The overview shows how far it is.")
        self._admin.message_user(self._request, text % {"label": self._intervention.label})

    def _say(self, changed: int, left: str, link: str) -> None:
        label = self._intervention.label
        text = ngettext(
            "%(label)s: %(number)d delivery.", "%(label)s: %(number)d deliveries.", changed
        ) % {"label": label, "number": changed}
        if not changed:
            text = _("%(label)s: nothing was changed.") % {"label": label}
        level = messages.SUCCESS if changed else messages.WARNING
        said = format_html_join(" ", "{}", [(each,) for each in (text, left, link) if each])
        self._admin.message_user(self._request, said, level)


def _is_first(request: Any) -> bool:
    """Say whether this page was not confirmed before: by a second click, or after a step back."""
    page = request.POST["horizon"]
    before = request.session.get(_CONFIRMED, [])
    if page in before:
        return False
    request.session[_CONFIRMED] = [*before[1 - _REMEMBERED :], page]
    request.session.save()  # at once: the second click may come before this is done
    return True


def have_done(
    request: Any,
    intervention: Intervention,
    selection: Selection,
    using: str,
    horizon: Horizon,
    options: Options | None = None,
) -> Repair:
    """Have an intervention made in the background on all that matched; note it in the log."""
    affected = intervention.affected(meant(intervention, selection.rows(using), horizon))
    repair = ask_for(
        intervention,
        selection,
        using,
        by=request.user.get_username(),
        expected=counted(affected[: COUNTED + 1].count()),
        options=options,
        horizon=horizon,
    )
    note = f"{intervention.label}: {repair.expected}"
    LogEntry.objects.log_actions(request.user.pk, [repair], ADDITION, note)
    return repair


def offered(delivery: Any, request: HttpRequest, *, has_object: bool) -> list[Intervention]:
    """Return what the person may do about one delivery in the state that it is in."""
    held = bool(delivery.held_by) and (delivery.due_in or 0) > 0
    finished = delivery.finished_at is not None or delivery.state not in ("pending", "waiting")
    fitting = _for_finished(delivery) if finished else _for_unfinished(delivery)
    fitting = [name for name in fitting if has_object or name != "rebuild"]
    names = [] if held and not finished else fitting
    return [INTERVENTIONS[n] for n in names if is_allowed(request, INTERVENTIONS[n])]


def _for_finished(delivery: Delivery) -> list[str]:
    names = []
    if delivery.state != "delivered" and delivery.replaced_by_id is None:
        names.append("retry")
    if delivery.method:
        names.append("resend")
    if delivery.event != "deleted":
        names.append("rebuild")
    return [*names, "repoint"]


def _for_unfinished(delivery: Any) -> list[str]:
    names = ["cancel", "repoint"]
    if delivery.state == "waiting":
        names.insert(0, "skip")
    elif (delivery.due_in or 0) > 0:
        names.insert(0, "retry")
    return names
