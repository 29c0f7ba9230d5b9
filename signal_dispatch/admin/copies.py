"""Find what was recorded in the place of a delivery that a person had sent again."""

from typing import Any

from django.db.models import Max
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _

from signal_dispatch.admin import outboxes
from signal_dispatch.models import Delivery

_SAME = ("environment", "dispatch", "endpoint", "event", "model", "object_pk")


class Copies:
    """The deliveries that are made after this moment in the place of one."""

    def __init__(self, original: Delivery, using: str) -> None:
        self._using = using
        same = {name: getattr(original, name) for name in _SAME}
        self._like_it = Delivery.objects.using(using).filter(**same)
        self._last = self._like_it.aggregate(last=Max("pk"))["last"] or 0

    def link(self, site_name: str) -> Any:
        """Return the link to the new one; empty where the original itself goes out again."""
        made = self._like_it.filter(pk__gt=self._last).order_by("pk")
        new = made.values_list("pk", flat=True).first()
        if new is None:
            return ""
        route = "admin:signal_dispatch_delivery_change"
        url = reverse(route, args=[new], current_app=site_name)
        text = _("It is the new delivery %d.") % new
        return format_html('<a href="{}">{}</a>', url + outboxes.query_for(self._using), text)
