"""What has to be known before something is done about an endpoint."""

from datetime import datetime, timedelta

from django import forms
from django.utils.translation import gettext_lazy

from signal_dispatch import trying
from signal_dispatch.selecting import Selection

#: Since when failed deliveries are sent again, as hours.
SPANS = (
    ("1", gettext_lazy("1 hour")),
    ("6", gettext_lazy("6 hours")),
    ("24", gettext_lazy("24 hours")),
    ("168", gettext_lazy("7 days")),
    ("720", gettext_lazy("30 days")),
)
#: A moment as browsers send it.
MOMENT = "%Y-%m-%dT%H:%M:%S"


class PauseForm(forms.Form):
    """Why it is paused."""

    reason = forms.CharField(label=gettext_lazy("Reason"), required=False, max_length=500)


class TrialForm(forms.Form):
    """What is called."""

    method = forms.ChoiceField(
        label=gettext_lazy("Method"), choices=[(name, name) for name in trying.METHODS]
    )
    path = forms.CharField(
        label=gettext_lazy("Path below the endpoint's URL"), required=False, max_length=500
    )

    def clean_path(self) -> str:
        """Refuse what leads out of the endpoint's URL."""
        path: str = self.cleaned_data["path"]
        try:
            trying.refuse_path(path)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error
        return path


class SinceForm(forms.Form):
    """Since when; the moment wins over the hours."""

    hours = forms.ChoiceField(choices=SPANS, required=False)
    moment = forms.DateTimeField(required=False, input_formats=[MOMENT, "%Y-%m-%dT%H:%M"])

    def clean_moment(self) -> datetime | None:
        """Refuse what no day or time zone may lead away from."""
        moment: datetime | None = self.cleaned_data["moment"]
        try:
            Selection(since=moment.isoformat() if moment else None)
        except ValueError as error:
            raise forms.ValidationError(str(error)) from error
        return moment

    def since(self, now: datetime) -> datetime:
        """Return the moment, to the second; the hours end now, by the database's clock."""
        moment: datetime | None = self.cleaned_data["moment"]
        hours = int(self.cleaned_data["hours"] or 24)
        moment = moment or now - timedelta(hours=hours)
        return moment.replace(microsecond=0)
