"""Deliveries in the admin: to look at, and to put right by actions. No row is edited."""

from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import BadRequest, PermissionDenied
from django.http import HttpRequest
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext_lazy as _

from signal_dispatch import showing
from signal_dispatch.admin import cells, outboxes
from signal_dispatch.admin.actions import actions_for, offered
from signal_dispatch.admin.changelist import DeliveryChangeList, is_number
from signal_dispatch.admin.detail import DeliveryPage
from signal_dispatch.admin.filters import FILTERS, Found
from signal_dispatch.admin.objects import link_objects
from signal_dispatch.admin.pages import PAGES
from signal_dispatch.explaining import timed
from signal_dispatch.models import Delivery


@admin.register(Delivery)
class DeliveryAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """List what was to be sent, show one delivery whole."""

    list_display = ("number", "state_pill", "call", "attempts_shown", "last_result", "recorded")
    list_display_links = ("number",)
    list_filter = FILTERS
    list_per_page = 50
    # Named so that the search box is shown; Selection reads what is typed.
    search_fields = ("uid",)
    search_help_text = _("A number, a uid, an object's key, or an object such as shop.order:7.")
    ordering = ("-id",)
    sortable_by = ()
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    change_list_template = "admin/signal_dispatch/delivery/change_list.html"

    class Media:
        """Colours and shapes, by the admin's own variables."""

        css = {"all": ("signal_dispatch/admin.css",)}

    # Rows are made by saves and settled by senders.

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: a save makes deliveries."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: there are actions for what may be changed."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: the retention says when finished deliveries go."""
        return False

    def get_urls(self) -> Any:
        """Return the pages; by now every admin and every dispatch is known."""
        link_objects(self.admin_site)
        return [*(page(self).route() for page in PAGES), *super().get_urls()]

    # What may be done

    def get_actions(self, request: HttpRequest, action_location: Any = None) -> Any:
        """Return what the person may do about deliveries, and what a site adds."""
        if action_location is None:  # as Django before 6.1 asks
            return {**super().get_actions(request), **actions_for(request)}
        parent: Any = super()
        inherited = parent.get_actions(request, action_location=action_location)
        # The page of one delivery has no form to choose them in.
        return inherited | (actions_for(request) if action_location.name == "CHANGE_LIST" else {})

    # The list

    def get_queryset(self, request: HttpRequest) -> Any:
        """Return the deliveries of the outbox that the address names."""
        return Delivery.objects.using(outboxes.using_of(request)).all()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        """Return the list whose cost does not grow."""
        return DeliveryChangeList

    def lookup_allowed(self, lookup: str, value: Any, request: Any = None) -> bool:
        """Allow everything: ``Selection`` judges it."""
        return True

    def found(self, request: Any) -> Found:
        """Return the values to filter by that stand in the newest rows; asked once a request."""
        if not hasattr(request, "signal_dispatch_found"):
            request.signal_dispatch_found = Found(self.get_queryset(request))
        found: Found = request.signal_dispatch_found
        return found

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> Any:
        """Show the list, or do what was chosen in it; raises ``BadRequest`` for a forged choice."""
        if not all(map(is_number, request.POST.getlist(ACTION_CHECKBOX_NAME))):
            raise BadRequest("What was chosen is no number of a delivery.")
        context = {"title": _("Deliveries")}
        return super().changelist_view(request, context | (extra_context or {}))

    @admin.display(description=_("number"))
    def number(self, delivery: Delivery) -> str:
        """Return the number, without separators of thousands."""
        return str(delivery.pk)

    @admin.display(description=_("state"))
    def state_pill(self, delivery: Delivery) -> str:
        """Show the state."""
        return showing.pill(delivery.state)

    @admin.display(description=_("call"))
    def call(self, delivery: Any) -> Any:
        """Show what happened to which object, and below it who tells whom."""
        return format_html(
            '<strong class="sd-event">{}</strong> {}'
            '<span class="sd-below"><span class="sd-dispatch">{}</span> '
            '<span aria-hidden="true">→</span> <span class="sd-endpoint">{}</span></span>',
            delivery.event,
            delivery.object_link,
            delivery.dispatch,
            delivery.endpoint,
        )

    @admin.display(description=_("attempts"))
    def attempts_shown(self, delivery: Any) -> Any:
        """Show how many of how many; below it when the next one may be made, and what bars it.

        For one that somebody has in hand that is the end of the lease.
        """
        parts = showing.relative(delivery.due_in, delivery.available_at), cells.barred(delivery)
        below = format_html_join(", ", "{}", ([part] for part in parts if part))
        return cells.two_lines(cells.attempts(delivery), below)

    @admin.display(description=_("last result"))
    def last_result(self, delivery: Delivery) -> Any:
        """Show the last status or error class, its sentence on hover; below it the latency."""
        text = cells.last_result(delivery)
        shown = format_html('<span title="{}">{}</span>', delivery.reason, text) if text else ""
        latency = delivery.last_duration_ms
        return cells.two_lines(shown, "" if latency is None else f"{latency} ms")

    @admin.display(description=_("recorded"))
    def recorded(self, delivery: Any) -> Any:
        """Show when it was recorded."""
        return showing.relative(min(delivery.age_in, 0), delivery.created_at)

    # The page of one

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> Any:
        """Show one delivery: its way so far, why it waits, what was sent and answered."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        delivery = self.get_object(request, object_id)
        if delivery is None:
            self.message_user(request, _("There is no such delivery any more."), messages.WARNING)
            return redirect(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist")
        page = DeliveryPage(delivery, self.admin_site, request)
        context = {
            **self.admin_site.each_context(request),
            "title": _("Delivery %s") % delivery.pk,
            "opts": self.opts,
            "original": delivery,
            "media": self.media,
            "preserved_filters": self.get_preserved_filters(request),
            "page": page,
            "offered": offered(delivery, request, has_object=page.has_object),
            "action_checkbox_name": ACTION_CHECKBOX_NAME,
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/signal_dispatch/delivery/change_form.html", context)

    def get_object(self, request: HttpRequest, object_id: str, from_field: Any = None) -> Any:
        """Return a delivery with its seconds, or None."""
        if not is_number(object_id):
            return None
        return timed(self.get_queryset(request)).filter(pk=int(object_id)).first()
