"""Link the pages of objects that are told of to their deliveries, whoever wrote those pages."""

from typing import Any

from django.apps import apps
from django.contrib.admin import AdminSite
from django.template import Template
from django.template.loader import select_template

from signal_dispatch.registry import registry

TEMPLATE = "admin/signal_dispatch/object_change_form.html"


def link_objects(site: AdminSite) -> None:
    """Let each registered admin of a mapped model show the link; twice is as good as once.

    Its page is extended, whatever template it has. ``signal_dispatch_link = False`` on the admin
    leaves it as it is.
    """
    mapped = tuple({dispatch.model for dispatch in registry})
    for model in apps.get_models():
        if mapped and issubclass(model, mapped) and site.is_registered(model):
            _link(site.get_model_admin(model))


def _link(model_admin: Any) -> None:
    own = model_admin.change_form_template
    if own == TEMPLATE or not getattr(model_admin, "signal_dispatch_link", True):
        return
    model_admin.signal_dispatch_parent = _Parent(model_admin, own)
    model_admin.change_form_template = TEMPLATE


class _Parent:
    """The template that the admin would have used; the template of ours asks for it by name."""

    def __init__(self, model_admin: Any, own: str | None) -> None:
        options = model_admin.opts
        place = f"admin/{options.app_label}"
        usual = [
            f"{place}/{options.model_name}/change_form.html",
            f"{place}/change_form.html",
            "admin/change_form.html",
        ]
        self._names = [own] if own else usual

    def __call__(self) -> Template:
        found: Any = select_template(self._names)
        template: Template = found.template
        return template
