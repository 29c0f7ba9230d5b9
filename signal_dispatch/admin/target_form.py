"""What has to be known before deliveries are given to another dispatch or endpoint."""

from typing import Any

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import DeliveryQuerySet
from signal_dispatch.registry import registry
from signal_dispatch.status import COUNTED

_SEPARATOR = "\x1f"


class TargetForm(forms.Form):
    """Whom deliveries are given to."""

    dispatch = forms.ChoiceField(label=gettext_lazy("Dispatch"), required=False)
    endpoint = forms.ChoiceField(label=gettext_lazy("Endpoint"), required=False)
    renamed = forms.BooleanField(
        label=gettext_lazy("The model was renamed: take those of its old name, too"), required=False
    )

    def __init__(self, rows: DeliveryQuerySet, data: Any = None) -> None:
        super().__init__(data)
        self._rows = rows
        as_it_is = [("", _("(as it is)"))]
        pairs = sorted(registry.pairs())
        dispatches = [(_SEPARATOR.join(pair), f"{pair[0]} ({pair[1]})") for pair in pairs]
        known: Any = self.fields
        known["dispatch"].choices = as_it_is + dispatches
        known["endpoint"].choices = as_it_is + [(alias, alias) for alias in sorted(endpoints)]

    def clean(self) -> dict[str, Any]:
        """Refuse what names nothing, and ask where objects would become those of another model."""
        given = super().clean() or {}
        if not (given.get("dispatch") or given.get("endpoint")):
            raise forms.ValidationError(_("Choose a dispatch, an endpoint, or both."))
        if given.get("dispatch") and not given["renamed"]:
            self._refuse_other_models(*given["dispatch"].split(_SEPARATOR))
        return given

    def options(self) -> dict[str, str]:
        """Return what was chosen, as ``Target`` takes it."""
        name, _separator, model = self.cleaned_data["dispatch"].partition(_SEPARATOR)
        options = {"endpoint": self.cleaned_data["endpoint"], "dispatch": name, "model": model}
        # Further back than was looked at there may be others: nobody was asked about those.
        options["only_of"] = "" if self.cleaned_data["renamed"] else model
        return {key: value for key, value in options.items() if value}

    def _refuse_other_models(self, dispatch: str, model: str) -> None:
        newest = self._rows.order_by("-pk").values_list("model", flat=True)[:COUNTED]
        other = next((each for each in newest if each != model), None)
        if other is not None:
            text = _(
                "%(dispatch)s is declared for %(model)s, and some of these tell of %(other)s. "
                "Given to it, they are of the %(model)s with the same key. That is right where "
                "the model was renamed, and only there: then say so here."
            )
            told = {"dispatch": dispatch, "model": model, "other": other}
            self.add_error("renamed", text % told)
