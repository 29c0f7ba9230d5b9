"""What the outbox keeps of each endpoint: whether it may be called, and how its calls fared."""

from collections.abc import Mapping
from typing import Self

from django.db import models
from django.db.models import F, Q, Sum
from django.utils.translation import gettext_lazy as _

from signal_dispatch.clocks import DatabaseMinute, DatabaseNow
from signal_dispatch.moments import MomentField

_BARRED = Q(open_until__isnull=False) | Q(paused_at__isnull=False)


class EndpointStateQuerySet(models.QuerySet["EndpointState"]):
    """Endpoints by whether they may be called."""

    def barred(self) -> Self:
        """Keep those that must not be called: paused, or their breaker is open."""
        return self.filter(_BARRED)

    def barred_or_failing(self) -> Self:
        """Keep those too whose incident goes on, though they may be called."""
        return self.filter(_BARRED | Q(failing_since__isnull=False))


class EndpointState(models.Model):
    """Whether an endpoint may be called, for all processes of one environment.

    There is a row once it had to be asked.
    """

    id = models.BigAutoField(primary_key=True)
    environment = models.CharField(_("environment"), max_length=63, blank=True, default="")
    endpoint = models.CharField(_("endpoint"), max_length=150)
    # The breaker is open; from this moment one call may probe whether the remote is well again.
    open_until = MomentField(_("open until"), null=True, blank=True)
    opened_at = MomentField(_("opened at"), null=True, blank=True)
    # Paused by a person.
    paused_at = MomentField(_("paused at"), null=True, blank=True)
    paused_by = models.CharField(_("paused by"), max_length=150, blank=True, default="")
    pause_reason = models.CharField(_("pause reason"), max_length=500, blank=True, default="")
    # An incident goes on since then, and people heard of it; also that the breaker opened in it.
    failing_since = MomentField(_("failing since"), null=True, blank=True)
    opening_told = models.BooleanField(_("opening told"), default=False)
    # When people heard of a failed delivery, the last time.
    failure_told_at = MomentField(_("failure told at"), null=True, blank=True)

    objects = EndpointStateQuerySet.as_manager()

    class Meta:
        verbose_name = _("endpoint state")
        verbose_name_plural = _("endpoint states")
        constraints = [
            # A save looks here before it takes a lease.
            models.UniqueConstraint(
                fields=["environment", "endpoint"], name="signal_dispatch_endpoint"
            )
        ]

    def __str__(self) -> str:
        return self.endpoint


class EndpointMinuteQuerySet(models.QuerySet["EndpointMinute"]):
    """Minutes of endpoints."""

    def within(self, seconds: float) -> Self:
        """Keep the minutes that such a time up to now touches."""
        return self.filter(minute__gt=DatabaseNow(-seconds - 60))

    def add(self, counts: Mapping[str, int]) -> bool:
        """Add to this minute's row, by the names of fields; False where there is none yet."""
        more = {name: F(name) + count for name, count in counts.items() if count}
        return bool(self.filter(minute=DatabaseMinute()).update(**more))

    def judged(self) -> tuple[int, int]:
        """Return how many attempts the breaker counts in these minutes, and how many failed."""
        sums = self.aggregate(attempts=Sum("breaker_attempts"), failed=Sum("breaker_failed"))
        return sums["attempts"] or 0, sums["failed"] or 0

    def pardon(self) -> None:
        """Let the breaker count from now on."""
        self.filter(breaker_attempts__gt=0).update(breaker_attempts=0, breaker_failed=0)


class EndpointMinute(models.Model):
    """How the calls to an endpoint fared within one minute: counts of attempts.

    ``retried`` is what was put off, whoever asked for it. ``duration_ms`` is the sum of all; those
    that took longer than the last bound are in no bucket.
    """

    id = models.BigAutoField(primary_key=True)
    environment = models.CharField(_("environment"), max_length=63, blank=True, default="")
    endpoint = models.CharField(_("endpoint"), max_length=150)
    minute = MomentField(_("minute"), db_index=True)

    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    delivered = models.PositiveIntegerField(_("delivered"), default=0)
    retried = models.PositiveIntegerField(_("retried"), default=0)
    rejected = models.PositiveIntegerField(_("rejected"), default=0)

    answered_2xx = models.PositiveIntegerField(_("answers 2xx"), default=0)
    answered_3xx = models.PositiveIntegerField(_("answers 3xx"), default=0)
    answered_4xx = models.PositiveIntegerField(_("answers 4xx"), default=0)
    answered_5xx = models.PositiveIntegerField(_("answers 5xx"), default=0)
    unanswered = models.PositiveIntegerField(_("unanswered"), default=0)

    duration_ms = models.PositiveBigIntegerField(_("duration"), default=0)
    within_100ms = models.PositiveIntegerField(_("within 100 ms"), default=0)
    within_1s = models.PositiveIntegerField(_("within 1 s, not 100 ms"), default=0)
    within_10s = models.PositiveIntegerField(_("within 10 s, not 1 s"), default=0)

    # What the breaker judges by. Set to nothing when it closes, so that it begins anew.
    breaker_attempts = models.PositiveIntegerField(_("attempts for the breaker"), default=0)
    breaker_failed = models.PositiveIntegerField(_("failed for the breaker"), default=0)

    objects = EndpointMinuteQuerySet.as_manager()

    class Meta:
        verbose_name = _("endpoint minute")
        verbose_name_plural = _("endpoint minutes")
        constraints = [
            models.UniqueConstraint(
                fields=["environment", "endpoint", "minute"], name="signal_dispatch_minute"
            )
        ]

    def __str__(self) -> str:
        return f"{self.endpoint} {self.minute:%Y-%m-%d %H:%M}"
