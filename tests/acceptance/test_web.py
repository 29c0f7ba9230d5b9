"""Requests: views under ATOMIC_REQUESTS, async views, the first request of a process."""

import pytest
from asgiref.sync import async_to_sync
from django.db import connection
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

from signal_dispatch.backends import backends
from signal_dispatch.models import Delivery
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.urls("tests.acceptance.test_web"),
    pytest.mark.skipif(
        "connection.vendor == 'sqlite' and connection.is_in_memory_db()",
        reason="Threads are locked out of an in-memory database.",
    ),
]


def save(request):
    Order.objects.create(number="A-1")
    if request.GET.get("fail"):
        raise RuntimeError("after the save")
    return HttpResponse("saved")


async def save_async(request):
    order = await Order.objects.acreate(number="A-1")
    order.status = "paid"
    await order.asave()
    await Order.objects.aupdate_or_create(number="A-1", defaults={"status": "sent"})
    return HttpResponse("saved")


urlpatterns = [path("save/", save), path("save-async/", save_async)]


@pytest.fixture
def atomic_requests():
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


@pytest.mark.usefixtures("atomic_requests")
def test_an_exception_in_a_view_leaves_no_call(receiver, declare):
    declare(Order)
    client = Client(raise_request_exception=False)
    assert client.get("/save/", {"fail": "yes"}).status_code == 500
    backends["default"].drain(10)

    assert not Order.objects.exists()
    assert not Delivery.objects.exists()
    assert receiver.requests == []


@pytest.mark.usefixtures("atomic_requests")
def test_a_view_that_ends_well_makes_its_call(receiver, declare):
    declare(Order)
    assert Client().get("/save/").status_code == 200
    backends["default"].drain(10)

    assert [r.json["number"] for r in receiver.requests] == ["A-1"]


@pytest.fixture
def immediate(monkeypatch):
    """Begin transactions as a site on SQLite should: update_or_create() reads, then writes."""
    if connection.vendor == "sqlite":
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "transaction_mode", "IMMEDIATE")
        connection.close()
    yield
    connection.close()


@pytest.mark.usefixtures("immediate")
def test_an_async_view_makes_the_same_calls(receiver, declare):
    declare(Order)

    response = async_to_sync(AsyncClient().get)("/save-async/")
    assert response.status_code == 200
    backends["default"].drain(10)

    assert [r.json["status"] for r in receiver.requests] == ["draft", "paid", "sent"]
    assert [d.event for d in Delivery.objects.order_by("id")] == ["created", "updated", "updated"]
