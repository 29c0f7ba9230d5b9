"""What the admin's pages say in the same words: states, spans of time, links to deliveries."""

from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django import template
from django.db.models import Model
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _

from signal_dispatch import showing
from signal_dispatch.explaining import short_holder
from signal_dispatch.keys import key_as_text
from signal_dispatch.registry import registry
from signal_dispatch.spans import span

register = template.Library()

register.filter("span", span)
register.filter("holder", short_holder)
register.filter("pill", showing.pill)


@register.simple_tag
def ago(seconds: float, moment: datetime) -> str:
    """Show a moment that is over as the time since then, the exact one on hover."""
    return showing.relative(min(seconds, 0.0), moment)


@register.simple_tag(takes_context=True)
def deliveries_links(context: dict[str, Any], obj: Model | None) -> str:
    """Return a list item for each model as which dispatches know the object; mostly one."""
    request = context["request"]
    if obj is None or not request.user.has_perm("signal_dispatch.view_delivery"):
        return ""
    models = {d.model._meta.label_lower: d.model for d in registry if isinstance(obj, d.model)}
    address = reverse("admin:signal_dispatch_delivery_changelist", current_app=_site(request))
    links = []
    for label, model in models.items():
        key = key_as_text(getattr(obj, model._meta.pk.attname))
        query = urlencode({"model": label, "object_pk": key})
        name = _("Deliveries") if len(models) == 1 else f"{_('Deliveries')} ({label})"
        links.append((format_html("{}?{}", address, query), name))
    return format_html_join("\n", '<li><a href="{}" class="sd-history">{}</a></li>', links)


def _site(request: Any) -> str | None:
    return getattr(request, "current_app", None)
