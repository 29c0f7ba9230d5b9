"""What the pages beside the list have in common."""

from abc import ABC, abstractmethod
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from signal_dispatch.admin import outboxes


class Page(ABC):
    """One of the pages: for those who may view deliveries, of the outbox that the address names."""

    name = ""
    title: Any = ""
    #: Which of the links is that of this page, where it is not its own.
    here = ""

    def __init__(self, model_admin: Any) -> None:
        self.admin = model_admin

    def route(self) -> URLPattern:
        """Return its address, below that of the list."""
        view = self.admin.admin_site.admin_view(self.view)
        route: URLPattern = path(f"{self.name}/", view, name=f"signal_dispatch_{self.name}")
        return route

    def view(self, request: HttpRequest) -> HttpResponse:
        """Show the page; or do what was posted, and show it then."""
        if not self.admin.has_view_permission(request):
            raise PermissionDenied
        using = outboxes.using_of(request)
        if request.method == "POST":
            return self.post(request, using)
        return self.show(request, using)

    def show(self, request: HttpRequest, using: str, **more: Any) -> HttpResponse:
        """Show the page."""
        return self.render(request, using, self.name, self.context(request, using) | more)

    def render(
        self, request: HttpRequest, using: str, template: str, more: dict[str, Any]
    ) -> HttpResponse:
        """Fill a template with what all pages have, and more."""
        context = {
            **self.admin.admin_site.each_context(request),
            "title": self.title,
            "opts": self.admin.opts,
            "media": self.admin.media,
            "here": self.here or self.name,
            "using": using,
            "outboxes": outboxes.choices(using),
            "query": outboxes.query_for(using),
            **more,
        }
        request.current_app = self.admin.admin_site.name
        return TemplateResponse(request, f"admin/signal_dispatch/{template}.html", context)

    @abstractmethod
    def context(self, request: HttpRequest, using: str) -> dict[str, Any]:
        """Return what the template shows."""

    def post(self, request: HttpRequest, using: str) -> HttpResponse:
        """Do what was posted; by default there is nothing to do."""
        return redirect(request.get_full_path())
