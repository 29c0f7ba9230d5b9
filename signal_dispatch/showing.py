"""Show states and times on pages. Knows nothing of the admin, which a site may lack."""

from datetime import datetime

from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from signal_dispatch.models import State
from signal_dispatch.spans import span

# Told by the shape as well as by the colour.
_SHAPES = {
    State.PENDING: "◔",
    State.WAITING: "…",
    State.DELIVERED: "✔",
    State.FAILED: "✖",
    State.CANCELLED: "⊘",
}


def pill(state: str) -> SafeString:
    """Show a state by colour, shape and word."""
    known = state in State.values
    return format_html(
        '<span class="sd-pill sd-{}"><span aria-hidden="true">{}</span> {}</span>',
        state if known else "unknown",
        _SHAPES[State(state)] if known else "?",
        State(state).label if known else state,
    )


def relative(seconds: float | None, moment: datetime | None) -> SafeString | str:
    """Show a moment as the time from now, the exact one on hover. The seconds decide."""
    if seconds is None or moment is None:
        return ""
    text = _("in %s") % span(seconds) if seconds > 0 else _("%s ago") % span(-seconds)
    iso = moment.isoformat(timespec="seconds")
    return format_html('<time title="{}" datetime="{}">{}</time>', exact(moment), iso, text)


def exact(moment: datetime) -> str:
    """Write a moment to the second, in the time zone of the reader."""
    local = timezone.localtime(moment) if timezone.is_aware(moment) else moment
    return f"{formats.date_format(local, 'DATE_FORMAT')}, {local:%H:%M:%S}"
