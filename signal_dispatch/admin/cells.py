"""Write what the list and the page of one delivery have in common."""

from typing import Any

from django.apps import apps
from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote
from django.db import router
from django.db.models import Model
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from signal_dispatch.explaining import attempts_of, why_barred
from signal_dispatch.faring import Bar
from signal_dispatch.models import Delivery


def attempts(delivery: Delivery) -> str:
    """Show how many attempts were made, of how many."""
    most = attempts_of(delivery)
    return str(delivery.attempts) if most is None else f"{delivery.attempts}/{most}"


def two_lines(above: Any, below: Any) -> Any:
    """Put something smaller below something."""
    if not below:
        return above
    return format_html('{}<span class="sd-below">{}</span>', above, below)


def barred(delivery: Any) -> SafeString | str:
    """Show that nobody here takes it, or calls its endpoint, the sentence on hover; else empty."""
    bar: Bar = getattr(delivery, "bar", Bar("open"))
    word = _("paused") if bar.kind == "paused" else _("breaker open")
    why = why_barred(bar)
    if stranded := getattr(delivery, "stranded", ""):
        word, why = _("stranded"), stranded
    if not why:
        return ""
    return format_html('<span class="sd-barred" title="{}">{}</span>', why, word)


def last_result(delivery: Delivery) -> str:
    """Show the last status, or what went wrong where there is none or it does not say it all."""
    parts = [str(delivery.last_status)] if delivery.last_status else []
    if delivery.error_class and delivery.error_class != "status":
        parts.append(delivery.error_class)
    return " ".join(parts)


def model_of(label: str) -> type[Model] | None:
    """Return the model by its label; None where the site has it no more."""
    try:
        return apps.get_model(label)
    except (LookupError, ValueError):
        return None


def object_name(delivery: Delivery) -> str:
    """Name a delivery's object without a look at it."""
    model = model_of(delivery.model)
    name = str(model._meta.verbose_name) if model else delivery.model
    key = delivery.object_pk
    return f"{name} {', '.join(map(str, key)) if isinstance(key, tuple) else key}"


def object_url(delivery: Delivery, site: AdminSite, request: Any) -> str | None:
    """Return the address of the object's own page; None where the admin has none.

    Nor has it one of an object in a database that its pages don't show: there the key is another's.
    """
    model = model_of(delivery.model)
    if model is None or not site.is_registered(model) or isinstance(delivery.object_pk, tuple):
        return None
    shown = site.get_model_admin(model).get_queryset(request).db
    if not _is_read_from(shown, model, delivery._state.db):
        return None
    route = f"admin:{model._meta.app_label}_{model._meta.model_name}_change"
    try:
        return reverse(route, args=[quote(delivery.object_pk)], current_app=site.name)
    except NoReverseMatch:
        return None


def _is_read_from(shown: str, model: type[Model], written: str | None) -> bool:
    """Say whether what is read there was written here; a replica shows what the first holds."""
    replica = shown == router.db_for_read(model) and written == router.db_for_write(model)
    return shown == written or replica


def object_link(delivery: Delivery, site: AdminSite, request: Any) -> Any:
    """Show a delivery's object, as a link to its own page where there is one."""
    url, name = object_url(delivery, site, request), object_name(delivery)
    return format_html('<a href="{}">{}</a>', url, name) if url else name
