"""Endpoints of tenants: some are gone, some hang, and the others notice nothing of it."""

import json
import threading
import time
from collections import Counter

import pytest
from django.core.management import call_command
from django.db.backends import utils

from signal_dispatch import resolved
from signal_dispatch.backends import backends
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.status import status_of
from tests.acceptance import process
from tests.acceptance.soak import report, scaled
from tests.acceptance.subscribers import LOST
from tests.deliveries import delivery
from tests.settings import DATABASE
from tests.shop.models import Customer, Order, Subscription
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Threads and other processes are locked out of an in-memory database.",
    ),
]
GONE = {"state": "pending", "attempts": 0, "error_class": "gone"}


def of(key, **values):
    return Delivery.objects.filter(endpoint=f"tenant:{key}", **values)


def hangs_where_told(receiver, until):
    """Let the tenant at ``/slow/`` not answer before it is told to."""

    def script(request):
        if request.path.startswith("/slow/"):
            receiver.hold(until, 60)
        return 200, {}, b"{}"

    receiver.script = script


def arrived(receiver):
    return Counter(request.path.split("/")[1] for request in receiver.requests)


@pytest.mark.usefixtures("as_in_production")
def test_who_saves_for_a_tenant_is_not_kept_by_those_that_hang_or_are_gone(
    receiver, declare, tenant, monkeypatch
):
    monkeypatch.setattr(resolved, "KEEP_FAILURE_SECONDS", 0.2)
    monkeypatch.setattr(resolved, "MAX_WAIT_SECONDS", 0.4)
    until, found = threading.Event(), threading.Event()
    hangs_where_told(receiver, until)
    tenant.come("slow", "well", MAX_CONCURRENCY=4)
    tenant.answers["lost"] = lambda: (found.wait(60), {"URL": f"{receiver.url}lost/"})[1]
    everybody = [f"tenant:{key}" for key in ("gone", "slow", "lost", "well")]
    declare(Order, get_endpoint=lambda self, order, change: everybody)
    count, saved = scaled(30, 100), {}  # before what hangs is tried again
    for number in range(count):
        order = Order.objects.create(number=f"A-{number}")
        saved[order.number] = time.monotonic()
        eventually(lambda wanted=number + 1: arrived(receiver)["well"] >= wanted)

    late = [r.at - saved[r.json["number"]] for r in receiver.requests if r.path == "/well/"]
    assert arrived(receiver) == {"well": count, "slow": 4}
    assert tenant.asked.count("lost") == 1, "one thread asks for all that wait"
    eventually(lambda: of("gone", **GONE).count() == count)
    assert not Attempt.objects.filter(delivery__endpoint="tenant:gone").exists()
    reason = f'{tenant.PATH}("gone") knows no endpoint.'
    assert [(u.endpoint, u.reason) for u in status_of("default").unresolved] == [
        ("tenant:gone", reason)
    ]
    report(
        f"{DATABASE}, three tenants that are away",
        saves=count,
        p50_ms=1000 * sorted(late)[count // 2],
        asked_for_the_gone=tenant.asked.count("gone"),
    )
    tenant.come("gone")
    for event in (until, found):
        event.set()
    eventually(lambda: not Delivery.objects.unfinished().exists(), 30)
    assert arrived(receiver) == dict.fromkeys(["gone", "slow", "lost", "well"], count)
    assert set(of("gone").values_list("state", "attempts")) == {("delivered", 1)}


@pytest.mark.usefixtures("as_in_production")
def test_a_resolver_is_asked_once_a_minute_in_the_thread_that_sends(
    receiver, declare, tenant, monkeypatch
):
    now = [1000.0]
    monkeypatch.setattr(resolved, "monotonic", lambda: now[0])
    tenant.come("42", "7")
    declare(Order, get_endpoint=lambda self, order, change: ["tenant:42", "tenant:7"])
    for minute in range(3):
        for number in range(15):
            Order.objects.create(number=f"{minute}-{number}")
            backends["default"].drain(30)
            now[0] += 3.9
        assert Counter(tenant.asked) == {"42": minute + 1, "7": minute + 1}
        now[0] += 1.6

    assert arrived(receiver) == {"42": 45, "7": 45}
    assert all(name.startswith("signal_dispatch-sender") for name in tenant.threads)


def subscriptions(receiver, *tokens):
    customer = Customer.objects.create(name="all of them")
    made = [Subscription.objects.create(customer=customer, token=token) for token in tokens]
    for each, token in zip(made, tokens, strict=True):
        each.url = f"{receiver.url}{token}/"
        each.save()
    return made


def environment():
    retry = {"delays": [0] + [0.2] * 20}
    entry = {"DEADLINE": 30, "RETRY": retry, "MAX_CONCURRENCY": 4, "ALLOW_PRIVATE_ADDRESSES": True}
    tenant = {"RESOLVER": "tests.acceptance.subscribers.endpoint_of", **entry}
    return {
        "ENDPOINTS": json.dumps({"tenant": tenant}),
        "LEASE_SECONDS": "40",
        "KEEP_FAILURE_SECONDS": "0.3",
    }


def test_a_worker_serves_the_tenants_that_are_there(receiver):
    until = threading.Event()
    hangs_where_told(receiver, until)
    well, slow, lost, gone = subscriptions(receiver, "well", "slow", LOST, "gone")
    Subscription.objects.filter(pk=gone.pk).update(active=False)
    count = 20
    for number in range(count):
        for each in (gone, slow, lost, well):
            delivery(endpoint=f"tenant:{each.pk}", object_pk=number)
    arguments = ("dispatch_worker", "--concurrency", "12")
    worker = process.start(receiver.url, *arguments, **environment())
    try:
        eventually(lambda: of(well.pk, state="delivered").count() == count, 20)
        eventually(lambda: of(gone.pk, **GONE).count() == count, 30)
        assert arrived(receiver) == {"well": count, "slow": 4}
        assert not of(slow.pk).exclude(state="pending").exists()
        assert not of(lost.pk).exclude(state="pending", attempts=0).exists()

        shown = process.run(
            receiver.url, "dispatch_status", "--json", "--database", "default", **environment()
        )
        (waiting,) = json.loads(shown)["databases"]["default"]["unresolved"]
        assert (waiting["endpoint"], waiting["deliveries"]) == (f"tenant:{gone.pk}", count)
        assert "knows no endpoint (DoesNotExist)" in waiting["reason"]
        Subscription.objects.filter(pk=gone.pk).update(active=True)
        eventually(lambda: of(gone.pk, state="delivered", attempts=1).count() == count, 60)
        delivery(endpoint=f"tenant:{well.pk}")
        eventually(lambda: of(well.pk, state="delivered").count() == count + 1, 30)
        until.set()
        eventually(lambda: of(slow.pk, state="delivered").count() == count, 60)
    finally:
        until.set()
        worker.kill()
        output, _none = worker.communicate(timeout=10)
    assert "Traceback" not in output
    tokens = {r.path: r.headers["Authorization"] for r in receiver.requests}
    assert tokens == {f"/{name}/": f"Bearer {name}" for name in ("well", "slow", "gone")}


@pytest.mark.usefixtures("as_in_production")
def test_hundreds_of_tenants_are_drained_in_few_statements(
    receiver, declare, tenant, settings, monkeypatch
):
    count = scaled(300, 1000)
    settings.SIGNAL_DISPATCH_ENDPOINTS["tenant"]["MAX_CONCURRENCY"] = 16
    tenant.come(*map(str, range(count)))
    declare(Order)
    for number in range(count):
        for _each in range(1 + number % 2):
            delivery(endpoint=f"tenant:{number}")
    rows = Delivery.objects.count()
    statements, execute = [], utils.CursorWrapper.execute

    def counted(self, sql, params=None):
        statements.append(sql)
        return execute(self, sql, params)

    monkeypatch.setattr(utils.CursorWrapper, "execute", counted)
    began = time.monotonic()
    call_command("dispatch_worker", once=True, verbosity=0)
    took = time.monotonic() - began
    monkeypatch.undo()

    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
    assert len(receiver.requests) == rows
    assert len(tenant.asked) == count
    kinds = Counter(sql.split()[0] for sql in statements)
    report(f"{DATABASE}, {count} tenants, {rows} due", seconds=took, **kinds)
    assert len(statements) <= 6 * rows
