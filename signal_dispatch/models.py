"""The outbox: the calls that must be made, and the tries."""

import uuid
from collections.abc import Iterable
from typing import Any, Self

from django.db import models
from django.utils.translation import gettext_lazy as _

from signal_dispatch import payloads
from signal_dispatch.endpoint_states import EndpointMinute, EndpointState
from signal_dispatch.keys import ObjectKeyField
from signal_dispatch.moments import MomentField
from signal_dispatch.remote_objects import RemoteObject
from signal_dispatch.repairs import Repair
from signal_dispatch.worker_processes import WorkerProcess

__all__ = [
    "UNFINISHED",
    "Attempt",
    "Delivery",
    "DeliveryQuerySet",
    "EndpointMinute",
    "EndpointState",
    "RemoteObject",
    "Repair",
    "State",
    "WorkerProcess",
    "storable",
]


def storable(text: str) -> str:
    """Replace what no database takes: NUL, and surrogates that JSON may hold alone."""
    if text.isascii() and "\x00" not in text:  # nearly always
        return text
    return text.encode(errors="replace").decode().replace("\x00", "\ufffd")


class State(models.TextChoices):
    """Where a delivery is. A retry is PENDING with a later ``available_at``."""

    # Due, leased or scheduled: ``available_at`` says which.
    PENDING = "pending", _("pending")
    # Behind an earlier delivery of its lane; whoever settles that one moves it to PENDING.
    WAITING = "waiting", _("waiting")
    # The remote took it, and the answer is processed.
    DELIVERED = "delivered", _("delivered")
    # Given up: rejected, out of attempts, or it could not be built. ``reason`` says why.
    FAILED = "failed", _("failed")
    # By a person, replaced by a newer one, or there was nothing left to call for.
    CANCELLED = "cancelled", _("cancelled")


#: States of deliveries that still keep their lane busy.
UNFINISHED = (State.PENDING, State.WAITING)


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    """Deliveries by where they are."""

    def unfinished(self) -> Self:
        """Keep those that still have to be made."""
        return self.filter(state__in=UNFINISHED)

    def held(self, holder: str, ids: Iterable[int]) -> Self:
        """Keep those of the given ids whose lease the holder has."""
        return self.filter(pk__in=list(ids), held_by=holder, state=State.PENDING)


class Delivery(models.Model):
    """One call that must be made."""

    State = State

    id = models.BigAutoField(primary_key=True)
    uid = models.UUIDField(_("uid"), default=uuid.uuid4, editable=False)
    environment = models.CharField(_("environment"), max_length=63, blank=True, default="")
    dispatch = models.CharField(_("dispatch"), max_length=150)
    endpoint = models.CharField(_("endpoint"), max_length=150)
    event = models.CharField(_("event"), max_length=100)
    model = models.CharField(_("model"), max_length=150)
    object_pk = ObjectKeyField(_("object"), max_length=255)
    lane = models.CharField(_("lane"), max_length=32, blank=True, default="")
    hops = models.PositiveSmallIntegerField(_("hops"), default=0)

    method = models.CharField(_("method"), max_length=16, blank=True, default="")
    path = models.TextField(_("path"), blank=True, default="")
    headers = models.JSONField(_("headers"), default=dict, blank=True)
    body = models.BinaryField(_("body"), default=b"")

    state = models.CharField(
        _("state"), max_length=16, choices=State.choices, default=State.PENDING
    )
    # Schedule and lease in one: from this moment any process may take the row.
    available_at = MomentField(_("available at"), null=True, blank=True)
    # No sooner, whatever comes: a WAITING row though its lane is free, a retry by ``Retry-After``.
    not_before = MomentField(_("not before"), null=True, blank=True)
    held_by = models.CharField(_("held by"), max_length=150, blank=True, default="")
    # Fencing token, raised by each claim; every settling write names it.
    epoch = models.PositiveIntegerField(_("epoch"), default=0)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    # Whether an attempt is behind it. Retries and first attempts are claimed apart.
    retried = models.BooleanField(_("retried"), default=False)
    # How many attempts it had when it was brought forward, the last time.
    forwarded_after = models.PositiveIntegerField(_("forwarded after"), null=True, blank=True)
    handler_tries = models.PositiveIntegerField(_("handler tries"), default=0)
    trace = models.CharField(_("trace"), max_length=255, blank=True, default="")
    created_at = MomentField(_("created at"))
    finished_at = MomentField(_("finished at"), null=True, blank=True)
    replaced_by = models.ForeignKey(
        "self",
        verbose_name=_("replaced by"),
        # The outbox is pruned in bulk; a dangling number is harmless there.
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        null=True,
        blank=True,
        related_name="+",
    )
    last_status = models.PositiveSmallIntegerField(_("last status"), null=True, blank=True)
    last_duration_ms = models.PositiveIntegerField(_("last duration"), null=True, blank=True)
    error_class = models.CharField(_("error class"), max_length=32, blank=True, default="")
    reason = models.CharField(_("reason"), max_length=500, blank=True, default="")

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        verbose_name = _("delivery")
        verbose_name_plural = _("deliveries")
        indexes = [
            # The claim orders by exactly this index: with any other order MariaDB sorts, and
            # locks every row it looked at. Endpoints that are not asked for cost nothing, and a
            # pile of retries lies in nobody's way.
            models.Index(
                fields=["environment", "endpoint", "retried", "available_at", "id"],
                name="signal_dispatch_claim",
            ),
            # Is the lane busy, and who is first in it?
            models.Index(fields=["state", "lane", "id"], name="signal_dispatch_lane"),
            # What was finished lately, and what long ago; of the unfinished, which endpoints
            # there are.
            models.Index(
                fields=["state", "finished_at", "environment", "endpoint"],
                name="signal_dispatch_finished",
            ),
            # What a person looks for: the newest that failed, perhaps there, of this kind and for
            # that reason; those of one object; one that a remote's log names. Among a million
            # rows nothing less finds them while somebody waits.
            models.Index(
                fields=["state", "id", "endpoint", "dispatch", "event", "error_class"],
                name="signal_dispatch_state",
            ),
            models.Index(fields=["object_pk", "id"], name="signal_dispatch_object"),
            models.Index(fields=["uid"], name="signal_dispatch_uid"),
        ]
        permissions = [
            ("can_retry", _("Can retry deliveries now")),
            ("can_cancel", _("Can cancel deliveries, and skip the one that blocks a lane")),
            ("can_resend", _("Can send deliveries again")),
            ("can_rebuild", _("Can rebuild deliveries from their objects")),
            ("can_repoint", _("Can give deliveries to another dispatch or endpoint")),
            ("can_pause", _("Can pause and resume endpoints")),
            ("can_test", _("Can make test calls to endpoints")),
        ]

    def __str__(self) -> str:
        return f"{self.pk}: {self.dispatch} {self.event} {self.model} {self.object_pk}"

    @property
    def payload(self) -> Any:
        """The decoded body: JSON and forms as Python values, anything else as bytes."""
        return payloads.decode(bytes(self.body), payloads.content_type_of(self.headers))

    def log_extra(self, action: str) -> dict[str, Any]:
        """Return what a log line about the delivery carries in ``extra``."""
        return {"action": action, "delivery": self.pk, "trace": self.trace}

    @property
    def is_latest(self) -> bool:
        """Whether no later delivery of its lane exists. Asks the database each time."""
        rows = Delivery.objects.using(self._state.db)
        if self.lane:
            # All states are named so that the index on state and lane answers.
            rows = rows.filter(state__in=State.values, lane=self.lane)
        else:
            rows = rows.filter(
                dispatch=self.dispatch,
                endpoint=self.endpoint,
                model=self.model,
                object_pk=self.object_pk,
            )
        # One that creates anew what the remote lost stands where the failed one stood.
        lost = rows.filter(state=State.FAILED, replaced_by__isnull=False)
        places = dict(lost.values_list("replaced_by", "pk"))
        mine = places.get(self.pk, self.pk)
        earlier = [anew for anew, place in places.items() if place <= mine]
        return not rows.filter(pk__gt=mine).exclude(pk__in=[self.pk, *earlier]).exists()


class Attempt(models.Model):
    """One try of a delivery."""

    id = models.BigAutoField(primary_key=True)
    delivery = models.ForeignKey(
        Delivery, verbose_name=_("delivery"), on_delete=models.CASCADE, related_name="attempt_set"
    )
    number = models.PositiveIntegerField(_("number"))
    started_at = MomentField(_("started at"))
    duration_ms = models.PositiveIntegerField(_("duration"), default=0)
    outcome = models.CharField(_("outcome"), max_length=16)
    status_code = models.PositiveSmallIntegerField(_("status code"), null=True, blank=True)
    error_class = models.CharField(_("error class"), max_length=32, blank=True, default="")
    error = models.TextField(_("error"), blank=True, default="")
    response_headers = models.JSONField(_("response headers"), default=dict, blank=True)
    response_body = models.BinaryField(_("response body"), default=b"")
    truncated = models.BooleanField(_("truncated"), default=False)
    sender = models.CharField(_("sender"), max_length=150, blank=True, default="")

    class Meta:
        verbose_name = _("attempt")
        verbose_name_plural = _("attempts")

    def __str__(self) -> str:
        return f"{self.delivery_id}/{self.number}: {self.outcome}"
