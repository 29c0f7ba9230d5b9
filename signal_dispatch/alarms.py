"""Tell people of an incident: one line in the log, and one signal."""

import atexit
import logging
from dataclasses import dataclass
from threading import Lock, Thread
from time import monotonic
from typing import TYPE_CHECKING

from django.db import connections
from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _

from signal_dispatch import signals

if TYPE_CHECKING:
    from signal_dispatch.models import Delivery

logger = logging.getLogger("signal_dispatch")

#: Seconds that a process which ends waits for receivers, all of them together.
END_SECONDS = 10.0
_CURE = " When its cause is cured, 'manage.py dispatch_retry' lets it go out again."


class AlarmKind(TextChoices):
    """What an alarm is about."""

    ENDPOINT_FAILING = "endpoint_failing", _("an endpoint begins to fail")
    BREAKER_OPENED = "breaker_opened", _("an endpoint is paused by its breaker")
    ENDPOINT_RECOVERED = "endpoint_recovered", _("an endpoint is well again")
    DELIVERY_FAILED = "delivery_failed", _("a delivery is failed for good")


@dataclass(frozen=True, slots=True)
class Alarm:
    """What ``alarm_raised`` carries: ``text`` says it in a sentence, without any secret.

    ``using`` is the database of the outbox; ``delivery`` is the one of DELIVERY_FAILED.
    """

    kind: AlarmKind
    endpoint: str
    environment: str
    using: str
    text: str
    delivery: "Delivery | None" = None


def sound(alarm: Alarm, *, apart: bool) -> None:
    """Log the alarm and call the receivers.

    ``apart``: in a thread of their own, because a mail server may take its time, and the caller
    has calls to make meanwhile.
    """
    about = alarm.delivery.log_extra("alarm") if alarm.delivery else {"action": "alarm"}
    about |= {"alarm": alarm.kind.value, "endpoint": alarm.endpoint}
    # A delivery's end is in the log already, as a warning: this says what to do about it.
    cure = _CURE if alarm.kind == AlarmKind.DELIVERY_FAILED else ""
    logger.error("Alarm: %s%s", alarm.text, cure, extra=about)
    if not apart:
        _call(alarm)
    elif signals.alarm_raised.has_listeners(Alarm):
        thread = Thread(target=_call_and_close, args=(alarm,), name="alarm", daemon=True)
        with _lock:
            _calling[:] = [each for each in _calling if each.is_alive()]
            _calling.append(thread)
            thread.start()


def _call(alarm: Alarm) -> None:
    signals.alarm_raised.send_robust(sender=Alarm, alarm=alarm)


def _call_and_close(alarm: Alarm) -> None:
    try:
        _call(alarm)
    finally:
        connections.close_all()


def finish() -> None:
    """Wait until the receivers in threads are through, but not for ever."""
    end = monotonic() + END_SECONDS
    with _lock:
        calling = list(_calling)
    for thread in calling:
        thread.join(max(0.0, end - monotonic()))


_lock = Lock()
_calling: list[Thread] = []
# The alarm of a command that ends at once is not to be lost.
atexit.register(finish)
