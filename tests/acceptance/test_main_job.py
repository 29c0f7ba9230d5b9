"""The whole way: real commits, real threads, real HTTP."""

import json
import threading
import time
from collections import Counter, defaultdict

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction

from signal_dispatch import Event, ModelDispatch, enqueue
from signal_dispatch.backends import backends
from signal_dispatch.databases import own_transaction
from signal_dispatch.models import Delivery, RemoteObject
from signal_dispatch.registry import registry
from tests.receiver import Receiver
from tests.shop.models import Order, Place
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
    pytest.mark.skipif(
        "connection.vendor == 'sqlite' and connection.is_in_memory_db()",
        reason="Threads are locked out of an in-memory database.",
    ),
]


def drain():
    backends["default"].drain(30)


def our_threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("signal_dispatch")]


class OrderToCRM(ModelDispatch):
    """Write the answer back."""

    name = "shop.OrderToCRM"
    endpoint = "crm"
    path = "orders/{number}"
    method = "PUT"
    fields = ["number", "status", "total", "customer__email"]

    def handle_response(self, delivery, response):
        Order.objects.filter(pk=delivery.object_pk).update(crm_id=response.json()["id"])


@pytest.fixture
def order_to_crm(receiver):
    receiver.script = lambda request: (201, {}, json.dumps({"id": request.path[-5:]}).encode())
    registry.add(OrderToCRM, Order)
    yield receiver
    registry.remove(OrderToCRM)


def test_a_save_returns_at_once_and_the_answer_comes(order_to_crm):
    answering = threading.Event()

    def slow(request):
        answering.wait(2)
        return 201, {}, b'{"id": "c-7"}'

    order_to_crm.script = slow
    began = time.monotonic()
    order = Order.objects.create(number="A-1", status="paid")
    saved_after = time.monotonic() - began
    order_to_crm.wait_for(1)
    order.refresh_from_db()
    assert order.crm_id == "", "the endpoint still thinks"
    assert saved_after < 1.5
    drain()

    order.refresh_from_db()
    assert order.crm_id == "c-7"
    assert time.monotonic() - began >= 2


def test_nothing_is_sent_before_the_commit_and_then_the_last_state(order_to_crm):
    with transaction.atomic():
        order = Order.objects.create(number="A-1", status="new")
        drain_sees_nothing = Delivery.objects.count() == 1 and not order_to_crm.requests
        order.status = "paid"
        order.save()
    drain()

    assert drain_sees_nothing
    assert [r.json["status"] for r in order_to_crm.requests] == ["paid"]


def test_200_saves_leave_no_thread_and_no_connection(order_to_crm, settings):
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {
            "BACKEND": "signal_dispatch.backends.threads.ThreadsBackend",
            "OPTIONS": {"idle_seconds": 0.2},
        }
    }
    for number in range(200):
        Order.objects.create(number=f"{number:05}", status="paid")
    drain()
    assert Order.objects.exclude(crm_id="").count() == 200
    eventually(lambda: our_threads() == ["signal_dispatch-bookkeeper"])
    if connection.vendor == "postgresql":
        eventually(lambda: sessions() == 1)


def sessions():
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND backend_type = 'client backend'"
        )
        return cursor.fetchone()[0]


def test_an_endpoint_that_is_down_gets_all_of_it_once_and_in_order(receiver, settings, declare):
    port, saves = receiver.port, 50
    receiver.close()
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {
            "URL": f"http://127.0.0.1:{port}/",
            "RETRY": {"delays": [0] + [0.5] * 60, "jitter": 0},
            "BREAKER": {"pause": 1},
        }
    }
    declare(Order)
    down_until = time.monotonic() + 10
    orders = [Order.objects.create(number=f"A-{n}", status="0") for n in range(5)]
    for step in range(1, saves // 5):
        for order in orders:
            order.status = str(step)
            order.save()
    eventually(lambda: time.monotonic() > down_until, 15)
    assert Delivery.objects.filter(state="delivered").count() == 0
    with Receiver(port=port) as up:
        eventually(lambda: not Delivery.objects.unfinished().exists(), 40)
        arrived = defaultdict(list)
        for request in up.requests:
            arrived[request.json["number"]].append(int(request.json["status"]))

    assert arrived == {f"A-{n}": list(range(10)) for n in range(5)}
    assert max(Counter(r.headers["Idempotency-Key"] for r in up.requests).values()) == 1
    assert Delivery.objects.filter(state="delivered").count() == saves


class ContactToHubSpot(ModelDispatch):
    """As the design prints it, but for the name."""

    name = "shop.ContactToHubSpot"
    endpoint = "crm"
    path = {
        Event.CREATED: "contacts",
        Event.UPDATED: "contacts/{remote_id}",
        Event.DELETED: "contacts/{remote_id}",
    }
    method = {Event.CREATED: "POST", Event.UPDATED: "PATCH", Event.DELETED: "DELETE"}
    fields = ["email", "first_name"]
    remote_id = "id"


class StubbornContact(ContactToHubSpot):
    """Its handler raises twice."""

    raised = 0

    def handle_response(self, delivery, response):
        if StubbornContact.raised < 2:
            StubbornContact.raised += 1
            raise RuntimeError("not now")


@pytest.mark.parametrize("dispatch", [ContactToHubSpot, StubbornContact])
def test_changes_that_come_while_the_create_hangs_wait_for_its_id(receiver, dispatch):
    go_on = threading.Event()

    def script(request):
        if request.method == "POST":
            go_on.wait(10)
            return 201, {}, b'{"id": "h-9"}'
        return 200, {}, b"{}"

    receiver.script = script
    registry.add(dispatch, User)
    try:
        user = User.objects.create(username="u", first_name="0")
        receiver.wait_for(1)
        for name in "12":
            user.first_name = name
            user.save()
        user.delete()
        assert len(receiver.requests) == 1
        go_on.set()
        eventually(lambda: not Delivery.objects.unfinished().exists())
    finally:
        registry.remove(dispatch)

    assert [(r.method, r.path) for r in receiver.requests] == [
        ("POST", "/contacts"),
        ("PATCH", "/contacts/h-9"),
        ("PATCH", "/contacts/h-9"),
        ("DELETE", "/contacts/h-9"),
    ]
    assert [r.json["first_name"] for r in receiver.requests[:3]] == ["0", "1", "2"]
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
    assert not RemoteObject.objects.exists()
    if dispatch is StubbornContact:
        assert Delivery.objects.earliest("id").handler_tries == 2


def test_many_threads_saving_one_object_send_in_commit_order(receiver, declare):
    declare(Order, fields=["number", "total"])
    order = Order.objects.create(number="A-1", total=0)

    def save():
        try:
            for _ in range(10):
                # On SQLite this begins IMMEDIATE, as a site's own should.
                with own_transaction("default"):
                    mine = Order.objects.select_for_update().get(pk=order.pk)
                    mine.total += 1
                    mine.save()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drain()

    totals = [float(r.json["total"]) for r in receiver.requests]
    assert totals == list(range(41))


def test_an_answer_written_back_from_a_get(receiver, declare):
    class Geocode(ModelDispatch):
        def get_path_values(self, place, change):
            return {"q": place.address}

        def handle_response(self, delivery, response):
            found = response.json()
            Place.objects.filter(pk=delivery.object_pk).update(lat=found["lat"], lon=found["lon"])

    declare(
        Place, base=Geocode, method="GET", path="search{?q}", fields=(), when_changed=["address"]
    )
    receiver.script = lambda request: (200, {}, b'{"lat": 52.5, "lon": 13.4}')
    place = Place.objects.create(address="Unter den Linden 1, Berlin")
    drain()

    place.refresh_from_db()
    assert (place.lat, place.lon) == (52.5, 13.4)
    (request,) = receiver.requests
    assert request.path == "/search?q=Unter%20den%20Linden%201%2C%20Berlin"
    assert (request.method, request.body) == ("GET", b"")
    assert "Idempotency-Key" not in request.headers


def test_own_events_and_forms_arrive(receiver, declare):
    declare(Order, on=["refunded"], encoding="form", path="refunds")
    order = Order.objects.create(number="A 1")
    enqueue(order, event="refunded")
    drain()

    (request,) = receiver.requests
    assert request.body == b"number=A+1&status=draft"
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"


def test_a_bulk_of_objects_arrives(receiver, declare):
    declare(Order)
    Order.objects.bulk_create([Order(number=f"A-{n}") for n in range(120)])
    assert enqueue(Order.objects.all(), event=Event.CREATED) == 120
    drain()

    assert len({r.json["number"] for r in receiver.requests}) == 120


def test_an_endpoint_that_hangs_does_not_slow_the_others(receiver, declare, settings):
    hanging = threading.Event()
    with Receiver(lambda request: (hanging.wait(20), (200, {}, b""))[1]) as hangs:
        settings.SIGNAL_DISPATCH_ENDPOINTS = {
            "crm": {"URL": receiver.url},
            "slow": {"URL": hangs.url},
        }
        declare(Order, name="shop.Slow", endpoint="slow")
        declare(Order)
        for number in range(40):
            Order.objects.create(number=f"A-{number}")
        receiver.wait_for(40, timeout=10)
        assert len(hangs.requests) <= 8, "MAX_CONCURRENCY"
        hanging.set()
        drain()

    assert len(hangs.requests) == 40
