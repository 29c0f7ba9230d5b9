"""The workers that live, as each of them writes into the outboxes."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from signal_dispatch.moments import MomentField


class WorkerProcess(models.Model):
    """A ``dispatch_worker`` that lives, or lived a short while ago."""

    id = models.BigAutoField(primary_key=True)
    # As in ``held_by`` of the deliveries that it holds.
    name = models.CharField(_("name"), max_length=150, unique=True)
    host = models.CharField(_("host"), max_length=100)
    pid = models.PositiveIntegerField(_("pid"))
    environment = models.CharField(_("environment"), max_length=63, blank=True, default="")
    endpoints = models.JSONField(_("endpoints"), default=list, blank=True)
    concurrency = models.PositiveIntegerField(_("concurrency"))
    started_at = MomentField(_("started at"))
    # When it last looked into this outbox.
    seen_at = MomentField(_("seen at"))

    class Meta:
        verbose_name = _("worker process")
        verbose_name_plural = _("worker processes")

    def __str__(self) -> str:
        return self.name
