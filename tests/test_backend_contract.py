"""What every backend promises, whoever sends: one suite over all of them."""

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from django.core.management import call_command
from django.db import connection, connections, transaction
from django_tasks_db.management.commands.db_worker import Worker

from signal_dispatch import enqueue, patience
from signal_dispatch.backends import backends
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.signals import delivery_finished
from tests import savepoints
from tests.shop.models import Order

EVENTS = ["created", "updated"]

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("as_in_production"),
]


@dataclass
class Case:
    """A backend in use: ``done()`` returns when all that is due was sent."""

    name: str
    done: Callable[[], None]
    calls: Callable[[], list[tuple[str, str]]]


def dispatch_worker():
    call_command("dispatch_worker", once=True, verbosity=0)


def run_tasks():
    """Run tasks as they come, as a worker of django-tasks-db does, until nothing is due."""
    drained = threading.Event()
    db_worker = Worker(
        queue_names=["*"],
        interval=0,
        batch=True,
        backend_name="default",
        startup_delay=False,
        max_tasks=None,
        worker_id="contract",
        excluded_queue_names=[],
    )

    def work():
        while not drained.is_set():
            db_worker.run()
            drained.wait(0.02)
        connections.close_all()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        backends["default"].drain(10)
    finally:
        drained.set()
        worker.join(10)


@pytest.fixture(scope="module")
def celery_worker():
    """Run a worker of Celery in a thread, where it sees what a test declares."""
    import signal_dispatch.backends.celery  # noqa: F401 - a worker knows the tasks that it began with

    app = Celery("contract", broker="memory://")
    app.conf.broker_transport_options = {"polling_interval": 0.02}
    app.conf.worker_hijack_root_logger = False
    with pytest.MonkeyPatch.context() as patch:
        # From Django 6.1 on they ask each database, which a test may not.
        patch.setenv("CELERY_SKIP_CHECKS", "true")
        # The level becomes that of all loggers: it is to stay what it is.
        with start_worker(app, perform_ping_check=False, loglevel="WARNING"):
            yield


@pytest.fixture(params=["threads", "immediate", "console", "deferred", "celery", "tasks"])
def case(request, settings, receiver, declare, capsys):
    name, printed = request.param, []
    if name == "celery":
        request.getfixturevalue("celery_worker")
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {"BACKEND": f"signal_dispatch.backends.{name}.{name.title()}Backend"}
    }
    declare(Order, path="orders/{number}", method={"created": "PUT", "updated": "PATCH"}, on=EVENTS)

    def received():
        return [(r.method, r.path) for r in receiver.requests]

    def shown():
        printed.append(capsys.readouterr().out)
        found = re.findall(r"^([A-Z]+) (orders/\S+)  \(crm at 127", "".join(printed), re.MULTILINE)
        return [(method, f"/{path}") for method, path in found]

    def drain():
        backends["default"].drain(10)

    done = {"threads": drain, "celery": drain, "tasks": run_tasks, "deferred": dispatch_worker}
    return Case(name, done.get(name, lambda: None), shown if name == "console" else received)


def states():
    return set(Delivery.objects.values_list("state", flat=True))


def test_a_saved_object_is_told(case):
    Order.objects.create(number="A-1")
    case.done()

    assert case.calls() == [("PUT", "/orders/A-1")]
    made = Delivery.objects.get()
    assert (made.state, made.held_by, made.available_at) == ("delivered", "", None)
    assert Attempt.objects.count() == (0 if case.name == "console" else 1)


def test_nothing_is_told_before_the_commit_and_all_of_it_after(case, monkeypatch):
    # On SQLite who would send waits for who saves, and would for long.
    monkeypatch.setattr(patience, "SECONDS", 0.5)
    if connection.vendor == "sqlite":
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.5)
    with transaction.atomic():
        Order.objects.create(number="A-1")
        Order.objects.create(number="A-2")
        case.done()
        assert case.calls() == []
    case.done()

    assert sorted(case.calls()) == [("PUT", "/orders/A-1"), ("PUT", "/orders/A-2")]
    assert states() == {"delivered"}


def test_what_was_rolled_back_is_not_told(case, receiver):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        Order.objects.create(number="gone")
        _ = 1 / 0
    with transaction.atomic():
        point = savepoints.create()
        Order.objects.create(number="also-gone")
        transaction.savepoint_rollback(point)
        Order.objects.create(number="kept")
    case.done()

    assert case.calls() == [("PUT", "/orders/kept")]
    # SQLite gives the row that was kept the number of the one that is gone.
    kept = str(Delivery.objects.get().uid)
    assert {r.headers["Idempotency-Key"] for r in receiver.requests} <= {kept}


def test_changes_of_one_object_are_told_in_their_order(case):
    order = Order.objects.create(number="A-0")
    for number in range(1, 6):
        order.number = f"A-{number}"
        order.save()
    case.done()

    told = [("PUT", "/orders/A-0"), *[("PATCH", f"/orders/A-{n}") for n in range(1, 6)]]
    assert case.calls() == told
    assert states() == {"delivered"}


def test_what_is_sent_is_what_was_committed_last(case):
    with transaction.atomic():
        order = Order.objects.create(number="first")
        order.number = "last"
        order.save()
    case.done()

    assert case.calls() == [("PUT", "/orders/last")]


def test_enqueued_objects_are_told(case):
    Order.objects.bulk_create([Order(number=f"A-{n}") for n in range(15)])
    assert enqueue(Order.objects.all()) == 15
    case.done()

    assert sorted(case.calls()) == sorted(("PATCH", f"/orders/A-{n}") for n in range(15))
    assert states() == {"delivered"}


def test_whoever_waited_for_a_head_that_was_settled_before_the_commit_is_told(case):
    order = Order.objects.create(number="A-1")
    case.done()
    head = Delivery.objects.all()
    head.update(state="pending", held_by="slow", available_at="9000-01-01T00:00Z")
    with transaction.atomic():
        order.save()
        assert Delivery.objects.latest("id").state == "waiting"
        head.filter(held_by="slow").update(state="delivered", available_at=None)
    case.done()

    assert case.calls() == [("PUT", "/orders/A-1"), ("PATCH", "/orders/A-1")]


def test_the_other_endpoints_do_not_fall_silent_for_one_that_is_down(case, receiver):
    receiver.script = lambda request: (503 if "bad" in request.path else 200, {}, b"")
    for number in ("bad", "good"):
        Order.objects.create(number=number)
    case.done()

    assert ("PUT", "/orders/good") in case.calls()
    assert Delivery.objects.get(path="orders/good").state == "delivered"


def test_a_first_attempt_comes_when_the_policy_says(case, settings, receiver):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": receiver.url, "RETRY": {"delays": [60, 60]}}
    }
    Order.objects.create(number="A-1")
    case.done()

    if case.name == "console":  # nobody would come back to print it
        assert case.calls() == [("PUT", "/orders/A-1")]
    else:
        assert case.calls() == []
        assert states() == {"pending"}


def test_who_listens_hears_how_it_ended(case):
    heard = []

    def hear(delivery, **kwargs):
        heard.append(delivery.state)

    delivery_finished.connect(hear)
    try:
        Order.objects.create(number="A-1")
        case.done()
    finally:
        delivery_finished.disconnect(hear)

    assert heard == ["delivered"]


def test_rows_of_another_environment_are_told_nobody(case, settings):
    with transaction.atomic():
        Order.objects.create(number="A-1")
        Delivery.objects.update(environment="staging", held_by="", available_at="2020-01-01T00:00Z")
    case.done()

    assert case.calls() == []
    assert states() == {"pending"}


def test_an_unknown_endpoint_is_recorded_and_left(case, settings, declare):
    declare(Order, name="shop.Elsewhere", endpoint="nowhere", path="elsewhere")
    Order.objects.create(number="A-1")
    case.done()

    assert Delivery.objects.get(endpoint="crm").state == "delivered"
    assert Delivery.objects.get(endpoint="nowhere").attempts == 0
    assert [path for _method, path in case.calls() if "orders" in path] == ["/orders/A-1"]
