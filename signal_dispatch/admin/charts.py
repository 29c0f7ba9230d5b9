"""Draw the hours of a day: what was delivered goes up, what failed goes down, hatched.

As attributes of an SVG, no styles: a strict Content-Security-Policy lets it through.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils import formats
from django.utils.translation import gettext as _

from signal_dispatch.recent_calls import Hour

WIDTH, HEIGHT, MARGIN = 30, 180, 6
#: Every so many hours there is a label.
_LABELLED = 6


@dataclass(frozen=True, slots=True)
class Bar:
    """One hour; lengths are written as SVG wants them, whatever the language."""

    left: str
    label: str
    title: str
    delivered: int
    failed: int
    up_from: str
    up: str
    down: str
    is_labelled: bool


@dataclass(frozen=True, slots=True)
class Chart:
    """All of them, and the line between up and down."""

    bars: tuple[Bar, ...]
    base: str
    width: int
    is_empty: bool


def chart_of(hours: Sequence[Hour]) -> Chart:
    """Lay out the chart of these hours, the oldest at the left."""
    up = max((hour.delivered for hour in hours), default=0)
    down = max((hour.failed for hour in hours), default=0)
    scale = (HEIGHT - 2 * MARGIN) / max(1, up + down)
    base = MARGIN + up * scale
    bars = tuple(_bar(hour, place, base, scale) for place, hour in enumerate(hours))
    return Chart(bars, _written(base), WIDTH * len(hours), is_empty=not (up or down))


def _bar(hour: Hour, place: int, base: float, scale: float) -> Bar:
    label = formats.time_format(hour.begins, "H:i")
    told = {"hour": label, "delivered": hour.delivered, "failed": hour.failed}
    # What is not nothing is seen, beside thousands as well.
    up, down = (max(4.0, n * scale) if n else 0.0 for n in (hour.delivered, hour.failed))
    return Bar(
        str(WIDTH * place),
        label,
        _("%(hour)s: %(delivered)d delivered, %(failed)d failed") % told,
        hour.delivered,
        hour.failed,
        _written(base - up),
        _written(up),
        _written(down),
        is_labelled=place % _LABELLED == 0,
    )


def _written(length: float) -> str:
    return f"{length:.1f}"
