"""Rows that are not this process's to send: another environment's, or other code's."""

import pytest

from signal_dispatch.backends import backends
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
from tests.acceptance import changed
from tests.acceptance.rows import copy
from tests.deliveries import delivery
from tests.settings import DATABASE
from tests.shop.models import Customer, Order

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Threads and other processes are locked out of an in-memory database.",
    ),
]


def rows(made):
    return list(Delivery.objects.filter(pk__in=[d.pk for d in made]).order_by("pk").values())


def test_a_restored_dump_of_production_calls_nobody_on_staging(receiver):
    due, later = delivery(environment="production"), {"available_at": DatabaseNow(1)}
    copy(due, 50)
    for values in (
        {"lane": "head"},
        {"lane": "head", "state": "waiting", "available_at": None},
        {"lane": "its head is gone", "state": "waiting", "available_at": None},
        {"held_by": "web-1:7:ab", "epoch": 1, **later},
        {"attempts": 3, "epoch": 3, **later},
    ):
        delivery(environment="production", **values)
    dumped = list(Delivery.objects.order_by("pk").values())
    staging = {"SIGNAL_DISPATCH_ENVIRONMENT": "staging"}
    changed.run(receiver.url, "save", "3", "s", settings=staging)
    changed.run(receiver.url, "dispatch_worker", "--once", settings=staging)

    assert sorted(r.json["number"] for r in receiver.requests) == ["s-0", "s-1", "s-2"]
    assert list(Delivery.objects.filter(environment="production").order_by("pk").values()) == dumped


@pytest.mark.usefixtures("as_in_production")
def test_old_code_leaves_the_rows_of_new_code_to_it(receiver, declare, settings):
    declare(Order)
    made = [
        delivery(dispatch="shop.New", object_pk=1),
        delivery(dispatch="shop.New", object_pk=2, lane="n", held_by="gone", epoch=1),
        delivery(dispatch="shop.New", object_pk=2, lane="n", state="waiting", available_at=None),
        delivery(endpoint="erp", object_pk=3),
        delivery(model="shop.customer", object_pk=4),
    ]
    before = rows(made)
    own = Order.objects.create(number="A-1")
    backends["default"].drain(30)
    assert rows(made) == before, "neither taken nor failed, and still due for those who know them"
    assert Delivery.objects.get(object_pk=own.pk, event="created").state == "delivered"

    backends["default"].stop()
    declare(Order, name="shop.New")
    declare(Customer, fields=["name"])
    endpoints = settings.SIGNAL_DISPATCH_ENDPOINTS
    settings.SIGNAL_DISPATCH_ENDPOINTS = {**endpoints, "erp": endpoints["crm"]}
    backends["default"].drain(30)

    assert {row["state"] for row in rows(made)} == {"delivered"}
    assert {row["attempts"] for row in rows(made)} == {1}
    assert len(receiver.requests) == len(made) + 1
