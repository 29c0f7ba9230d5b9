"""Know when an incident begins and ends, so that people hear of it once and not at each call.

An endpoint's incident begins when calls to it fail in a row, or its breaker opens, and ends when
they have been well for a while. It stands in the outbox: of many processes one tells it.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any

from django.db import Error
from django.db.models import Q
from django.db.models.functions import Coalesce
from django.utils.translation import gettext as _

from signal_dispatch import bars, counting
from signal_dispatch.alarms import Alarm, AlarmKind, finish, sound
from signal_dispatch.breakers import Breaker
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.conf import settings
from signal_dispatch.endpoints import breaker_of
from signal_dispatch.models import Delivery, State

logger = logging.getLogger("signal_dispatch")

#: What begins an incident: so many failed attempts, and such a share, within so many seconds.
BEGIN_FAILED, BEGIN_SHARE = 3, 0.5
#: What ends it: at most such a share failed within as many. Far below the other, or an endpoint
#: that stands in between would begin and end one over and over.
END_SHARE = 0.1
WINDOW_SECONDS = 60.0
#: Where an endpoint has no breaker, its failures are looked at within so many seconds.
_LOOK_SECONDS = Breaker().window
#: Seconds after which a process asks again whether a failed delivery was told of.
ASK_SECONDS = 60.0
#: Seconds in which the deliveries of one endpoint that are FAILED are one incident.
FAILED_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the breaker counts, whether it is open now by that, and whether an incident goes on."""

    attempts: int
    failed: int
    opens: bool
    fails: bool


def judge(using: str, endpoint: str, *, known: bool, apart: bool) -> Verdict:
    """Look at an endpoint that a call failed at: begin its incident, and open its breaker.

    ``known`` says that the incident began already, as far as this process heard.
    """
    breaker = breaker_of(endpoint)
    if breaker is None and known:
        return Verdict(0, 0, opens=False, fails=True)
    attempts, failed = counting.judged(
        using, endpoint, breaker.window if breaker else _LOOK_SECONDS
    )
    opens = breaker is not None and breaker.opens_at(attempts, failed)
    if breaker is not None and opens:
        if bars.open_breaker(using, endpoint, breaker, attempts=attempts, failed=failed):
            _tell_breaker(using, endpoint, breaker, attempts, failed, apart=apart)
    elif failed >= BEGIN_FAILED and not known:
        known = _begin(using, endpoint, apart=apart)
    return Verdict(attempts, failed, opens=opens, fails=known or opens)


def end_if_well(using: str, endpoint: str, *, apart: bool) -> bool:
    """End the incident of an endpoint that a call succeeded at; False where others failed still."""
    attempts, failed = counting.judged(using, endpoint, WINDOW_SECONDS)
    if failed > END_SHARE * attempts:
        return False
    rows = bars.state_of(using, endpoint).filter(failing_since__isnull=False)
    if rows.update(failing_since=None, opening_told=False):
        text = _("The endpoint %r is well again.") % endpoint
        _sound(AlarmKind.ENDPOINT_RECOVERED, using, endpoint, text, apart=apart)
    return True


def tell_failed(deliveries: Iterable[Delivery], using: str, *, apart: bool) -> None:
    """Tell of what is FAILED, of each endpoint the first, and the next one after an hour."""
    first = {d.endpoint: d for d in reversed(list(deliveries)) if d.state == State.FAILED}
    for endpoint, delivery in first.items():
        # A test, in whose thread it is told, begins with an outbox that knows of nothing.
        if (not apart or _may_be_first(using, endpoint)) and _is_first(using, endpoint):
            told = {"delivery": delivery, "reason": delivery.reason}
            text = _("Delivery %(delivery)s is failed for good. %(reason)s") % told
            kind = AlarmKind.DELIVERY_FAILED
            _sound(kind, using, endpoint, text, apart=apart, delivery=delivery)


def _begin(using: str, endpoint: str, *, apart: bool) -> bool:
    attempts, failed = counting.judged(using, endpoint, WINDOW_SECONDS)
    if failed < BEGIN_FAILED or failed < BEGIN_SHARE * attempts:
        return False
    if bars.write(using, endpoint, Q(failing_since=None), {"failing_since": DatabaseNow()}):
        told = {"endpoint": endpoint, "failed": failed, "attempts": attempts}
        text = _(
            "The endpoint %(endpoint)r fails: %(failed)d of its last %(attempts)d attempts did."
        )
        text %= told
        _sound(AlarmKind.ENDPOINT_FAILING, using, endpoint, text, apart=apart)
    return True


def _tell_breaker(
    using: str, endpoint: str, breaker: Breaker, attempts: int, failed: int, *, apart: bool
) -> None:
    """Tell that the breaker opened: once an incident, though it may open many times in one."""
    now = {"failing_since": Coalesce("failing_since", DatabaseNow()), "opening_told": True}
    # Its row is there, for the breaker opened.
    if bars.state_of(using, endpoint).filter(opening_told=False).update(**now):
        counts = {"failed": failed, "attempts": attempts, "pause": f"{breaker.pause:g}"}
        text = _(
            "The endpoint %(endpoint)r is paused by its breaker: %(failed)d of the last "
            "%(attempts)d attempts failed. After %(pause)s s one call at a time tries whether it "
            "is well again."
        )
        text %= counts | {"endpoint": endpoint}
        _sound(AlarmKind.BREAKER_OPENED, using, endpoint, text, apart=apart)


def forget() -> None:
    """Forget what this process asked, and wait for the receivers of alarms."""
    _asked.clear()
    finish()


#: When the outbox was asked whether a failed delivery was told of, by database and endpoint.
_asked: dict[tuple[str, str], float] = {}


def _may_be_first(using: str, endpoint: str) -> bool:
    """Say whether the outbox is worth asking: of many that fail in a row only the first is."""
    now, key = monotonic(), (using, endpoint)
    if now < _asked.get(key, -inf) + ASK_SECONDS:
        return False
    _asked[key] = now
    return True


def _is_first(using: str, endpoint: str) -> bool:
    old = Q(failure_told_at=None) | Q(failure_told_at__lt=DatabaseNow(-FAILED_SECONDS))
    try:
        return bars.write(using, endpoint, old, {"failure_told_at": DatabaseNow()})
    except Error as error:
        # What failed is recorded, and this must not undo it. Rather told twice than never.
        logger.warning(
            "Whether a failed delivery was told of can't be known (%s: %s). Its alarm is raised, "
            "perhaps once more.",
            type(error).__name__,
            error,
            extra={"action": "outbox_unavailable"},
        )
        return True


def _sound(
    kind: AlarmKind, using: str, endpoint: str, text: str, *, apart: bool, **more: Any
) -> None:
    sound(Alarm(kind, endpoint, settings.environment, using, text, **more), apart=apart)
