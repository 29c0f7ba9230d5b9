"""Lead to what was recorded in the place of a delivery that a person had sent again."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _

from signal_dispatch.admin import outboxes
from signal_dispatch.models import Delivery
from signal_dispatch.signals import delivery_enqueued


@contextmanager
def recorded_here() -> Iterator[list[int]]:
    """Collect the numbers of what this thread records inside of the block; others save, too."""
    numbers: list[int] = []
    mine = threading.get_ident()

    def note(delivery: Delivery, **kwargs: Any) -> None:
        if threading.get_ident() == mine:
            numbers.append(delivery.pk)

    delivery_enqueued.connect(note, weak=False)
    try:
        yield numbers
    finally:
        delivery_enqueued.disconnect(note)


def link_to(number: int, using: str, site_name: str) -> Any:
    """Return the link to a new delivery."""
    route = "admin:signal_dispatch_delivery_change"
    url = reverse(route, args=[number], current_app=site_name)
    text = _("It is the new delivery %d.") % number
    return format_html('<a href="{}">{}</a>', url + outboxes.query_for(using), text)
