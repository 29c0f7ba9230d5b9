"""The ids that remotes gave out."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from signal_dispatch.conf import own_environment
from signal_dispatch.keys import ObjectKeyField


class RemoteObject(models.Model):
    """The id that a remote gave to an object of this environment: a copy's remote is another."""

    id = models.BigAutoField(primary_key=True)
    environment = models.CharField(
        _("environment"), max_length=63, blank=True, default=own_environment
    )
    dispatch = models.CharField(_("dispatch"), max_length=150)
    endpoint = models.CharField(_("endpoint"), max_length=150)
    model = models.CharField(_("model"), max_length=150)
    object_pk = ObjectKeyField(_("object"), max_length=255)
    remote_id = models.CharField(_("remote id"), max_length=255)

    class Meta:
        verbose_name = _("remote object")
        verbose_name_plural = _("remote objects")
        constraints = [
            # 768 characters together, the most that MySQL indexes (3,072 bytes).
            models.UniqueConstraint(
                fields=["environment", "dispatch", "endpoint", "model", "object_pk"],
                name="signal_dispatch_remote",
            )
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.object_pk} at {self.endpoint}: {self.remote_id}"
