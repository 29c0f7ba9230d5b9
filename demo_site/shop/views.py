"""The shop's page and what its forms do. No view knows that a CRM is called."""

import time
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from demo_site.shop import crm
from demo_site.shop.forms import OrderForm
from demo_site.shop.models import Order, Status
from demo_site.shop.timelines import Call, orders_with_calls

#: The parts of the page that are renewed, by the names of their templates.
LIVE = ("switches", "orders", "crm")


@require_GET
def page(request: HttpRequest) -> HttpResponse:
    """Show the orders beside what the CRM holds."""
    return _render(request, OrderForm())


@require_POST
def add_order(request: HttpRequest) -> HttpResponse:
    """Add a draft."""
    form = OrderForm(request.POST)
    if not form.is_valid():
        return _render(request, form, status=422)
    order = form.save()
    messages.success(request, f"Order {order.number} added. A draft stays in the shop: pay it.")
    return redirect("page")


@require_POST
def pay_order(request: HttpRequest) -> HttpResponse:
    """Mark a draft as paid: an ordinary save, which the CRM is told about."""
    order = get_object_or_404(Order, number=request.POST.get("number"), status=Status.DRAFT)
    order.status = Status.PAID
    began = time.perf_counter()
    order.save()
    spent_ms = (time.perf_counter() - began) * 1000
    messages.success(request, f"Order {order.number} paid; save() took {spent_ms:.0f} ms.")
    return redirect("page")


@require_POST
def switch_crm(request: HttpRequest) -> HttpResponse:
    """Tell the CRM how to behave."""
    switch = crm.SWITCHES.get(request.POST.get("mode", ""))
    if switch is None:
        known = ", ".join(crm.SWITCHES)
        return HttpResponse(f"'mode' must be one of {known}.", "text/plain", status=422)
    try:
        crm.turn(switch)
    except crm.CRMUnreachable as error:
        messages.error(request, str(error))
    return redirect("page")


@never_cache
@require_GET
def orders_json(request: HttpRequest) -> JsonResponse:
    """Return the orders with their calls, by number."""
    return JsonResponse(
        {order.number: _as_dict(order, calls) for order, calls in orders_with_calls()}
    )


@never_cache
@require_GET
def live_json(request: HttpRequest) -> JsonResponse:
    """Return the parts of the page that change by themselves, each as its HTML."""
    context = _live_context()
    return JsonResponse(
        {part: render_to_string(f"shop/live/{part}.html", context, request) for part in LIVE}
    )


def _render(request: HttpRequest, form: OrderForm, status: int = 200) -> HttpResponse:
    return render(request, "shop/page.html", {"form": form} | _live_context(), status=status)


def _live_context() -> dict[str, Any]:
    state = crm.state()
    switches = [(switch, switch.is_on(state)) for switch in crm.SWITCHES.values()]
    return {"orders": orders_with_calls(), "crm": state, "switches": switches}


def _as_dict(order: Order, calls: list[Call]) -> dict[str, Any]:
    return {
        "status": order.status,
        "crm_id": order.crm_id,
        "admin": reverse("admin:shop_order_change", args=[order.pk]),
        "calls": [_call_as_dict(call) for call in calls],
    }


def _call_as_dict(call: Call) -> dict[str, Any]:
    shown = ("state", "attempts", "last_status", "reason")
    return {name: getattr(call.delivery, name) for name in shown} | {
        "admin": reverse("admin:signal_dispatch_delivery_change", args=[call.delivery.pk]),
        "timeline": [{"at": moment.at, "text": moment.text} for moment in call.timeline],
    }
