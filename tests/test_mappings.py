"""What is said of each dispatch: its declaration, and how its deliveries fare."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from signal_dispatch import Event, mappings
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.mappings import Told
from signal_dispatch.retries import RetryPolicy
from tests.deliveries import delivery
from tests.once import ONCE
from tests.shop.models import Order, Seat, Ticket

pytestmark = pytest.mark.django_db


def mapped():
    (only,) = mappings.mappings("default")
    return only


@ONCE
def test_a_plain_dispatch_is_told_as_it_is_declared(declare):
    declare(Order, path="orders/{number}", method="PUT", on=[Event.CREATED, Event.UPDATED])

    found = mapped()

    assert (found.name, found.model) == ("shop.Told", "shop.Order")
    assert (found.endpoint, found.host) == ("crm", "crm.example.com")
    assert found.calls == (Told(("created", "updated"), "PUT", "orders/{number}"),)
    assert found.carries == "number, status"
    assert (found.conditions, found.options) == ((), ())
    assert (found.unfinished, found.failed, found.last) == (0, 0, None)


@ONCE
def test_everything_that_is_special_is_told(declare):
    def hook(self, *arguments):
        raise NotImplementedError

    declare(
        Order,
        fields=None,
        m2m_fields=["tags"],
        when_changed=["status", "total"],
        latest_wins=True,
        ordered=False,
        delay=5,
        snapshot="send",
        remote_id="id",
        retry=RetryPolicy(delays=[0, 1]),
        **dict.fromkeys(["should_send", "get_payload", "get_path", "handle_response"], hook),
    )

    found = mapped()

    assert found.carries == "get_payload()"
    assert {call.path for call in found.calls} == {"get_path()"}
    assert found.conditions == (
        *("a save that changes status, total", "a change of tags", "should_send()"),
    )
    assert set(found.options) == {
        *("in no order", "the newest replaces what waits", "5 s after the save"),
        *("taken when it is sent", "keeps the remote's id", "2 attempts", "handle_response()"),
    }


@ONCE
def test_payloads_of_other_kinds_are_named(declare):
    class OrderSerializer:
        pass

    declare(Order, fields=None, serializer_class=OrderSerializer, name="shop.A")
    declare(Order, fields=(), name="shop.B")

    assert [m.carries for m in mappings.mappings("default")] == ["OrderSerializer", "no body"]


@ONCE
def test_managers_are_named_whose_bulk_operations_make_no_call(declare):
    declare(Order, Ticket, name="shop.All")
    declare(Order, name="shop.Created", on=[Event.CREATED])
    declare(Order, name="shop.Deleted", on=[Event.DELETED])

    found = {(m.name, m.model): m.silent_managers for m in mappings.mappings("default")}

    assert found == {
        ("shop.All", "shop.Order"): ("objects",),
        ("shop.All", "shop.Ticket"): (),
        ("shop.Created", "shop.Order"): ("objects",),
        ("shop.Deleted", "shop.Order"): (),
    }


def test_how_they_fare_is_counted_for_each(declare, settings):
    declare(Order)
    declare(Seat, name="shop.Seats", fields=["taken"])
    for _ in range(2):
        delivery()
    delivery(state="waiting", available_at=None, lane="a")
    delivery(environment="production")
    gone = {"state": "failed", "available_at": None}
    delivery(**gone, finished_at=DatabaseNow(-60))
    delivery(**gone, finished_at=DatabaseNow(-2 * 86400))
    newest = delivery(state="delivered", available_at=None, finished_at=DatabaseNow(-5))

    orders, seats = mappings.mappings("default")

    assert (orders.unfinished, orders.failed, orders.last) == (3, 1, newest)
    assert -60 < orders.last.age_in < 5
    assert -60 < orders.last.finished_in < 0
    assert (seats.unfinished, seats.failed, seats.last) == (0, 0, None)


def test_the_last_one_is_looked_for_among_the_newest(declare, monkeypatch):
    monkeypatch.setattr(mappings, "LOOKED_AT", 2)
    declare(Order)
    mine = delivery()
    for _ in range(2):
        delivery(dispatch="shop.Other")
    assert mapped().last is None

    mappings.LOOKED_AT = 3
    assert mapped().last == mine


def test_it_costs_as_many_statements_for_many(declare):
    for number in range(5):
        declare(Order, name=f"shop.N{number}")
        delivery(dispatch=f"shop.N{number}")
    with CaptureQueriesContext(connection) as queries:
        mappings.mappings("default")

    assert len(queries) == 5
