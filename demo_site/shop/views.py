"""The shop's page and what its forms do. No view knows that a CRM is called."""

import time
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_POST

from demo_site.shop import crm
from demo_site.shop.forms import OrderForm
from demo_site.shop.models import Order, Status
from signal_dispatch.models import Delivery

SHOWN_ORDERS = 20
MODES = {
    "healthy": "answers",
    "slow": "takes 3 s",
    "fail": "answers 503",
    "down": "refuses connections",
}


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
    try:
        crm.switch(request.POST.get("mode", ""))
    except crm.CRMUnreachable as error:
        messages.error(request, str(error))
    return redirect("page")


@require_GET
def orders_json(request: HttpRequest) -> JsonResponse:
    """Return the orders with their calls, by number."""
    return JsonResponse(
        {order.number: _as_dict(order, calls) for order, calls in _orders_with_calls()}
    )


def _render(request: HttpRequest, form: OrderForm, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        "orders": _orders_with_calls(),
        "crm": crm.state(),
        "modes": MODES,
    }
    return render(request, "shop/page.html", context, status=status)


def _orders_with_calls() -> list[tuple[Order, list[Delivery]]]:
    """Return the newest orders, each with its deliveries, the latest last."""
    orders = Order.objects.select_related("customer").order_by("-pk")[:SHOWN_ORDERS]
    calls: dict[int, list[Delivery]] = {order.pk: [] for order in orders}
    found = Delivery.objects.filter(model="shop.order", object_pk__in=list(calls))
    for delivery in found.order_by("pk"):
        calls[delivery.object_pk].append(delivery)
    return [(order, calls[order.pk]) for order in orders]


def _as_dict(order: Order, calls: list[Delivery]) -> dict[str, Any]:
    shown = ("state", "attempts", "last_status", "reason")
    return {
        "status": order.status,
        "crm_id": order.crm_id,
        "calls": [{name: getattr(call, name) for name in shown} for call in calls],
    }
