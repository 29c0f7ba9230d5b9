"""Say in one sentence why a delivery waits."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings as django_settings
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from signal_dispatch.clocks import SecondsFromNow
from signal_dispatch.endpoints import endpoints
from signal_dispatch.faring import Bar, bars_of
from signal_dispatch.models import Delivery, DeliveryQuerySet, State
from signal_dispatch.registry import registry
from signal_dispatch.spans import span
from signal_dispatch.stranding import stranded_because


@dataclass(frozen=True, slots=True)
class Wait:
    """Why a delivery waits; ``behind`` is the number of the one that goes before it."""

    sentence: str
    behind: int | None = None


def timed(rows: DeliveryQuerySet) -> DeliveryQuerySet:
    """Add seconds by the database's clock: ``due_in``, ``allowed_in``, and negative ``age_in``."""
    return rows.annotate(
        due_in=SecondsFromNow("available_at"),
        allowed_in=SecondsFromNow("not_before"),
        age_in=SecondsFromNow("created_at"),
    )


def why_it_waits(delivery: Any, using: str) -> Wait | None:
    """Say why a delivery that ``timed()`` rows hold is not finished; None where it is."""
    if delivery.state == State.WAITING:
        return _behind(delivery, using)
    if delivery.state != State.PENDING:
        return None
    return Wait(_until_sent(delivery, using))


def _until_sent(delivery: Any, using: str) -> str:
    left = float(delivery.due_in or 0)
    if delivery.held_by and left > 0:
        return _("%(holder)s has it in hand, until %(time)s at the latest.") % {
            "holder": short_holder(delivery.held_by),
            "time": clock(left),
        }
    stranded = why_stranded(delivery)
    if stranded:
        return stranded
    when = _due(-left) if left <= 0 else _next_attempt(delivery, left)
    bar = bars_of(using, [delivery.endpoint])[delivery.endpoint]
    why = why_barred(bar) or ("" if left > 0 else _taken_when(delivery))
    return f"{when} {why}".strip()


def _due(seconds: float) -> str:
    return _("It has been due for %(span)s.") % {"span": span(seconds)}


def _taken_when(delivery: Delivery) -> str:
    endpoint = endpoints.find(delivery.endpoint)
    if endpoint is None or endpoint.rate is None:
        return _("The next process that looks takes it.")
    count, seconds = endpoint.rate
    return ngettext(
        "Its endpoint gets at most %(count)d call in %(span)s: it waits for its turn.",
        "Its endpoint gets at most %(count)d calls in %(span)s: it waits for its turn.",
        count,
    ) % {"count": count, "span": span(seconds)}


def why_barred(bar: Bar) -> str:
    """Say who or what keeps an endpoint from being called; empty where nothing does."""
    if bar.kind == "breaker":
        return _broken(bar)
    return _paused(bar) if bar.kind == "paused" else ""


def _paused(bar: Bar) -> str:
    values = {"by": bar.by, "time": clock(bar.since_in), "reason": bar.reason}
    if bar.reason:
        return _("Its endpoint has been paused by %(by)s since %(time)s: %(reason)s") % values
    return _("Its endpoint has been paused by %(by)s since %(time)s.") % values


def _broken(bar: Bar) -> str:
    if bar.seconds_left <= 0:
        return _(
            "The breaker of its endpoint is open: one call at a time tries whether it is well."
        )
    return _(
        "The breaker of its endpoint is open until %(time)s: "
        "then one call tries whether it is well."
    ) % {"time": clock(bar.seconds_left)}


def _next_attempt(delivery: Delivery, left: float) -> str:
    values = {
        "number": delivery.attempts + 1,
        "most": attempts_of(delivery),
        "span": span(left),
    }
    if delivery.handler_tries:
        return _("Its answer is kept; the handler is run again in %(span)s.") % values
    return _("Attempt %(number)d of %(most)d is made in %(span)s.") % values


def why_stranded(delivery: Delivery) -> str:
    """Say why nobody here takes an unfinished one; empty where somebody may."""
    stranded = stranded_because(
        delivery.environment, delivery.endpoint, delivery.dispatch, delivery.model
    )
    return _("Nobody here takes it. %s") % stranded.advice if stranded else ""


def _behind(delivery: Any, using: str) -> Wait:
    lane = timed(Delivery.objects.using(using).all()).filter(lane=delivery.lane)
    head = lane.filter(state=State.PENDING).order_by("pk").first()
    if head is None:
        head = lane.filter(state=State.WAITING, pk__lt=delivery.pk).order_by("pk").first()
    if head is not None:
        sentence = _("It waits behind delivery %(number)d of this object.") % {"number": head.pk}
        if head.state == State.PENDING:
            sentence += " " + _("Of that one: %(sentence)s") % {
                "sentence": _until_sent(head, using)
            }
        return Wait(sentence, head.pk)
    left = float(delivery.allowed_in or 0)
    if left > 0:
        return Wait(_("It is to go out in %(span)s, and not before.") % {"span": span(left)})
    return Wait(
        why_stranded(delivery) or _("Nothing is before it any more: the next look frees it.")
    )


def attempts_of(delivery: Delivery) -> int | None:
    """Return how many attempts the delivery gets; None where nobody here knows."""
    dispatch = registry.find(delivery.dispatch, delivery.model)
    if dispatch is not None and dispatch.retry is not None:
        return dispatch.retry.attempts
    endpoint = endpoints.find(delivery.endpoint)
    return endpoint.retry.attempts if endpoint else None


def short_holder(name: str) -> str:
    """Return host and pid of a process, without the word that tells reused pids apart."""
    return name.rpartition(":")[0] or name


def clock(seconds: float) -> str:
    """Write the time of day in so many seconds, with the date unless that is today."""
    moment = now = timezone.localtime() if django_settings.USE_TZ else datetime.now()  # noqa: DTZ005 - as the site has it
    moment += timedelta(seconds=seconds)
    short = moment.date() == now.date()
    return formats.date_format(moment, "H:i" if short else "SHORT_DATETIME_FORMAT")
