"""The site's app: brings its dispatch, and notes what its processes do."""

import os
from typing import Any

from django.apps import AppConfig


class SiteConfig(AppConfig):
    """The site."""

    name = "tests.acceptance.site"
    label = "site"

    def ready(self) -> None:
        """Begin to take notes, and shorten the longest sleep where the test asks for it."""
        from tests.acceptance.site import notes

        notes.connect()
        if idle := os.environ.get("SITE_IDLE"):
            _sleep_at_most(float(idle))
        if os.environ.get("SITE_SAVES_AT_START"):
            _save_at_start()


def _sleep_at_most(seconds: float) -> None:
    from signal_dispatch.worker import Worker

    defaults: dict[str, Any] = Worker.__init__.__kwdefaults__ or {}
    defaults["max_sleep_seconds"] = seconds


def _save_at_start() -> None:
    from django.db import connections

    from tests.shop.models import Order

    Order.objects.create(number=f"start-{os.getpid()}")
    connections.close_all()
