"""Connect what is declared, once all models are loaded. Starts nothing and asks nothing."""

from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.core.signals import request_started
from django.utils.module_loading import autodiscover_modules
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from requests import Session

    from signal_dispatch.entries import Endpoint


class SignalDispatchConfig(AppConfig):
    """The app: finds each app's ``dispatches`` module, as the admin finds ``admin``."""

    name = "signal_dispatch"
    verbose_name = _("Signal dispatch")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Find the dispatches and connect their receivers and checks."""
        from signal_dispatch import checks, repair_steps, repairs, sender, tracing
        from signal_dispatch.backends import backends
        from signal_dispatch.receivers import wiring
        from signal_dispatch.registry import registry

        autodiscover_modules("dispatches")
        registry.listen(wiring.connect)
        # A site that declares nothing has no part in its requests.
        registry.listen(lambda: tracing.connect() if len(registry) else tracing.disconnect())
        checks.connect()
        repairs.work = repair_steps.step
        sender.network_guard = _guard_network
        backends.load()
        request_started.connect(
            _first_request, weak=False, dispatch_uid="signal_dispatch.first_request"
        )


def _first_request(**kwargs: Any) -> None:
    """Let a process that only reads take over what a dead one left."""
    from signal_dispatch.backends import backends
    from signal_dispatch.registry import registry

    request_started.disconnect(dispatch_uid="signal_dispatch.first_request")
    if len(registry) and not backends.under_test:
        backends.start()


def _guard_network(endpoint: "Endpoint", session: "Session") -> None:
    """Let no test call a real endpoint unawares, whichever runner it has."""
    from signal_dispatch.backends import backends

    if backends.under_test:
        from signal_dispatch.testing import stand_in

        stand_in(endpoint, session)
