"""What a person does about an endpoint: asked once more, then done, and noted in the log."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from signal_dispatch import bodies, pausing, trying
from signal_dispatch.admin import outboxes
from signal_dispatch.admin.actions import have_done
from signal_dispatch.admin.deed_forms import PauseForm, SinceForm, TrialForm
from signal_dispatch.conf import settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.faring import Bar
from signal_dispatch.horizons import Horizon
from signal_dispatch.interventions import INTERVENTIONS
from signal_dispatch.models import EndpointState, State, storable
from signal_dispatch.outcomes import OutcomeKind
from signal_dispatch.selecting import Selection
from signal_dispatch.status import COUNTED, counted


@dataclass(frozen=True, slots=True)
class Deed:
    """One of them."""

    name: str
    label: Any
    sentence: Any
    permission: str
    form: type[forms.Form] | None
    #: Kinds of a ``Bar`` at which it makes sense.
    kinds: tuple[str, ...]


_ALL = (
    Deed(
        "pause",
        gettext_lazy("Pause"),
        gettext_lazy(
            "Nobody calls it until it is resumed. What is to be sent waits, and loses no attempt."
        ),
        "can_pause",
        PauseForm,
        ("open", "breaker", "disabled"),
    ),
    Deed(
        "resume",
        gettext_lazy("Resume"),
        gettext_lazy(
            "It is called again at once, also where its breaker is open, which counts anew."
        ),
        "can_pause",
        None,
        ("paused", "breaker"),
    ),
    Deed(
        "test",
        gettext_lazy("Send a test call"),
        gettext_lazy(
            "One call with the endpoint's own credentials, made at once, also while it is paused. "
            "It is neither stored nor counted, and nothing is tried again. POST, PUT and PATCH "
            'carry {"test": true}: choose them only where the remote may take that.'
        ),
        "can_test",
        TrialForm,
        ("open", "paused", "breaker", "disabled"),
    ),
    Deed(
        "replay",
        gettext_lazy("Send again what failed"),
        INTERVENTIONS["retry"].sentence,
        "can_retry",
        SinceForm,
        ("open", "paused", "breaker", "disabled"),
    ),
)
DEEDS = {deed.name: deed for deed in _ALL}


def offered(request: Any, bar: Bar, alias: str) -> dict[str, Deed]:
    """Return what the person may do about the endpoint as it is."""
    endpoint = endpoints.find(alias)
    # Without a URL the calls are the site's own code, which needs a delivery.
    callable_ = endpoint is not None and bool(endpoint.url or endpoint.resolver)
    return {
        deed.name: deed
        for deed in _ALL
        if bar.kind in deed.kinds and _may(request, deed) and (callable_ or deed.name != "test")
    }


def _may(request: Any, deed: Deed) -> bool:
    return bool(request.user.has_perm(f"signal_dispatch.{deed.permission}"))


class Asked:
    """A deed that somebody asked for."""

    def __init__(self, page: Any, request: Any, using: str, alias: str) -> None:
        self._page, self._request, self._using, self._alias = page, request, using, alias

    def answer(self) -> HttpResponse:
        """Ask whether it is meant; if that was confirmed, do it."""
        deed = DEEDS.get(self._request.POST.get("deed", ""))
        if deed is None or endpoints.find(self._alias) is None:
            return self._back()
        if not _may(self._request, deed):
            raise PermissionDenied
        confirmed = "confirmed" in self._request.POST
        # Since when it failed is asked before; the others ask on the page that asks again.
        bound = self._request.POST if confirmed or deed.form is SinceForm else None
        form = deed.form(bound) if deed.form else None
        if form is not None and form.is_bound and not form.is_valid() and deed.form is SinceForm:
            self._say(_("That is no moment."), messages.ERROR)
            return self._back()
        if not confirmed or (form is not None and not form.is_valid()):
            return self._ask(deed, form)
        run: Callable[[Any], HttpResponse] = getattr(self, f"_{deed.name}")
        return run(form)

    def _ask(self, deed: Deed, form: Any) -> HttpResponse:
        more = {"deed": deed, "form": form, "title": f"{deed.label}: {self._alias}"}
        if isinstance(form, SinceForm):
            horizon = Horizon.of(self._using)
            since = form.since(horizon.moment)
            rows = self._selection(since).rows(self._using)
            affected = INTERVENTIONS["retry"].affected(rows)
            more |= {
                "form": None,
                "since": since,
                "moment": since.isoformat(),
                "horizon": horizon.as_text("replay", self._using),
                "affected": counted(affected[: COUNTED + 1].count()),
            }
        return self._render("endpoint_confirm", more)

    def _pause(self, form: Any) -> HttpResponse:
        reason = storable(form.cleaned_data["reason"])
        if pausing.pause(self._alias, by=self._user, reason=reason, using=self._using):
            self._note(_("Paused. %s") % reason)
            self._say(_("The endpoint %s is paused.") % self._alias)
        elif reason:
            self._note(_("Still paused. %s") % reason)
            text = _("The endpoint %s was paused already, and has the new reason.")
            self._say(text % self._alias)
        else:
            self._say(_("The endpoint %s was paused already.") % self._alias, messages.WARNING)
        return self._back()

    def _resume(self, form: Any) -> HttpResponse:
        if pausing.resume(self._alias, by=self._user, using=self._using):
            self._note(_("Resumed."))
            self._say(_("The endpoint %s is called again.") % self._alias)
        else:
            self._say(
                _("The endpoint %s was neither paused nor open.") % self._alias, messages.WARNING
            )
        return self._back()

    def _test(self, form: Any) -> HttpResponse:
        method, path = form.cleaned_data["method"], form.cleaned_data["path"]
        trial = trying.try_endpoint(self._alias, method=method, path=path, by=self._user)
        came = str(trial.status_code or trial.error_class)
        # What stands after the question mark may be a key, and the log is kept.
        told = {"method": method, "path": path.partition("?")[0], "came": came}
        self._note(_("Test call %(method)s /%(path)s: %(came)s.") % told)
        more = {
            "trial": trial,
            "came": came,
            "good": trial.outcome == OutcomeKind.DELIVERED,
            "called": f"{method} /{path}",
            "headers": bodies.masked(trial.response_headers),
            "body": bodies.readable(bytes(trial.response_body)),
            "title": _("Test call: %s") % self._alias,
        }
        return self._render("endpoint_trial", more)

    def _replay(self, form: Any) -> HttpResponse:
        horizon = Horizon.posted(self._request.POST, "replay", self._using)
        if horizon is None:
            return self._ask(DEEDS["replay"], form)
        since = form.since(horizon.moment)
        selection = self._selection(since)
        repair = have_done(self._request, INTERVENTIONS["retry"], selection, self._using, horizon)
        told = {"since": since.isoformat(" "), "number": repair.expected}
        self._note(_("Sent again what failed since %(since)s: %(number)s.") % told)
        self._say(_("Begun. The overview shows how far it is."))
        return self._back()

    def _selection(self, since: datetime) -> Selection:
        return Selection(
            state=State.FAILED.value,
            environment=settings.environment,
            endpoint=self._alias,
            finished_since=since.isoformat(),
        )

    @property
    def _user(self) -> str:
        return str(self._request.user.get_username())

    def _note(self, message: str) -> None:
        LogEntry.objects.create(
            user_id=self._request.user.pk,
            content_type=ContentType.objects.get_for_model(EndpointState),
            object_id=self._alias,
            object_repr=self._alias[:200],
            action_flag=CHANGE,
            change_message=outboxes.noted(self._using, message),
        )

    def _say(self, text: str, level: int = messages.SUCCESS) -> None:
        messages.add_message(self._request, level, text)

    def _back(self) -> HttpResponse:
        return HttpResponseRedirect(self._request.get_full_path())

    def _render(self, name: str, more: dict[str, Any]) -> HttpResponse:
        response: HttpResponse = self._page.render(self._request, self._using, name, more)
        return response
