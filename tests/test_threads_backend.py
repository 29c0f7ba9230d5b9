"""Threads of the process that saves: when they exist, and when they can't."""

import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace
from unittest import mock

import pytest
from django.db import transaction

from signal_dispatch import ModelDispatch, claims, pausing, repair_steps, scopes
from signal_dispatch.apps import _first_request
from signal_dispatch.backends import backends
from signal_dispatch.backends.threads import ThreadsBackend, threads_can_run
from signal_dispatch.exceptions import InvalidBackend
from signal_dispatch.interventions import INTERVENTIONS
from signal_dispatch.models import Delivery, Repair
from signal_dispatch.repair_steps import ask_for
from signal_dispatch.selecting import Selection
from signal_dispatch.worker import Worker
from tests.deliveries import delivery
from tests.run import ROOT
from tests.shop.models import Order
from tests.waiting import eventually


def threads_of_ours():
    return [t.name for t in threading.enumerate() if t.name.startswith("signal_dispatch-")]


@pytest.fixture
def backend():
    made = ThreadsBackend("default", sweep_seconds=0.5)
    yield made
    made.stop()


# Leases.


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_a_save_leases_its_delivery_to_this_process(declare, receiver):
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b"{}"))[1]
    declare(Order)
    Order.objects.create(number="A-1")
    receiver.wait_for(1)
    made = Delivery.objects.get()
    go.set()

    assert (made.held_by, made.epoch) == (claims.holder(), 1)
    assert 50 < (made.available_at - made.created_at).total_seconds() < 61
    eventually(lambda: Delivery.objects.get().state == "delivered")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_where_no_thread_can_be_had_rows_are_due_at_once(declare, receiver, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    declare(Order)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    Order.objects.create(number="A-1")

    made = Delivery.objects.get()
    assert (made.state, made.held_by, made.epoch) == ("pending", "", 0)
    assert made.available_at <= made.created_at


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_a_full_hand_leaves_the_row_to_whoever_has_room(declare, receiver, settings):
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b"{}"))[1]
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {
            "BACKEND": "signal_dispatch.backends.threads.ThreadsBackend",
            "OPTIONS": {"queue_size": 1, "max_senders": 1},
        }
    }
    declare(Order)
    for number in range(3):
        Order.objects.create(number=f"A-{number}")
        receiver.wait_for(1)
    assert [d.held_by != "" for d in Delivery.objects.order_by("id")] == [True, True, False]
    go.set()
    backends["default"].drain(10)

    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


# Start and stop.


def test_making_a_backend_starts_nothing(backend):
    backend.stop()
    assert threads_of_ours() == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"senders": 3}, "senders"), ({"drain_seconds": 1, "alias": 2}, "alias")],
)
def test_an_unknown_option_is_refused_with_its_place(settings, options, sentence):
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "slow": {
            "BACKEND": "signal_dispatch.backends.threads.ThreadsBackend",
            "OPTIONS": options,
        }
    }
    with pytest.raises(InvalidBackend, match=rf'BACKENDS\["slow"\]\["OPTIONS"\].*{sentence}'):
        backends["slow"]


@pytest.mark.django_db(transaction=True)
def test_what_a_dead_process_left_is_taken_over_by_one_that_only_reads(
    backend, declare, receiver, as_in_production
):
    declare(Order)
    delivery(held_by="dead", epoch=1)
    backend.start()

    receiver.wait_for(1)
    eventually(lambda: Delivery.objects.get().state == "delivered")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_the_first_request_starts_the_threads_if_anything_is_declared(declare, receiver):
    _first_request()
    assert threads_of_ours() == []
    declare(Order)
    _first_request()

    assert threads_of_ours() == ["signal_dispatch-bookkeeper"]


@pytest.mark.django_db(transaction=True)
def test_after_a_stop_the_next_delivery_starts_anew(backend, declare, receiver, as_in_production):
    declare(Order)
    backend.start()
    backend.stop()
    assert threads_of_ours() == []
    delivery()
    backend.start()

    backend.drain(10)
    assert len(receiver.requests) == 1


@pytest.mark.django_db(transaction=True)
def test_what_a_thread_met_is_raised_by_stop(backend, as_in_production):
    backend.start()
    backend._worker._hand.errors.append(ZeroDivisionError("met"))
    with pytest.raises(ZeroDivisionError, match="met"):
        backend.stop()
    backend.stop()  # once only


@pytest.mark.django_db(transaction=True)
def test_threads_that_come_at_once_share_one_worker(backend, as_in_production):
    together, workers = threading.Barrier(8), []

    def come():
        together.wait(10)
        workers.append(backend._current())

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(set(map(id, workers))) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_threads_that_come_at_once_share_one_backend(settings, monkeypatch):
    together, found = threading.Barrier(4), []
    made = ThreadsBackend.__init__

    def slow(self, *arguments, **options):
        together.wait(10)
        made(self, *arguments, **options)

    monkeypatch.setattr(ThreadsBackend, "__init__", slow)
    backends.forget()
    threads = [threading.Thread(target=lambda: found.append(backends["default"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert len(set(map(id, found))) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_one_that_was_forgotten_starts_no_thread_any_more():
    old = backends["default"]
    old.start()
    backends.forget()
    old.start()

    assert threads_of_ours() == []
    assert old.lease("default", "crm") is None


# uWSGI, which hands a thread no time unless it is told to.


@pytest.mark.parametrize(
    ("options", "can_run"),
    [
        ({}, False),
        ({"threads": b"4"}, True),
        ({"enable-threads": True}, True),
        ({b"enable-threads": True}, True),
        ({"enable-threads": False}, False),
    ],
)
def test_uwsgi_says_whether_threads_run(monkeypatch, options, can_run):
    assert threads_can_run()
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=options))

    assert threads_can_run() is can_run


def test_under_uwsgi_without_threads_nothing_is_leased_or_started(backend, monkeypatch):
    assert backend.check() == []
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt={}))

    assert backend.lease("default", "crm") is None
    backend.start()
    backend.committed([], "default", fresh=True)
    assert threads_of_ours() == []
    (warning,) = backend.check()
    assert warning.id == "signal_dispatch.W002"
    assert 'SIGNAL_DISPATCH_BACKENDS["default"]' in warning.msg
    assert "--enable-threads" in warning.hint


def test_in_the_process_that_uwsgi_forks_nothing_is_leased_or_started(backend, monkeypatch):
    uwsgi = SimpleNamespace(opt={"enable-threads": True}, masterpid=os.getpid)
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)

    assert backend.lease("default", "crm") is None
    backend.start()
    backend.committed([], "default", fresh=True)
    assert threads_of_ours() == []
    assert backend.check() == []
    uwsgi.masterpid = os.getppid
    backend.start()
    assert threads_of_ours() == ["signal_dispatch-bookkeeper"]


# Forks and the end, in processes of their own.

PROLOGUE = """
import os, sys, threading
import django
from django.conf import settings
settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": sys.argv[1]}}
django.setup()
from django.db import connections
from signal_dispatch import ModelDispatch, register
from signal_dispatch.backends import backends
from tests.shop.models import Order

@register(Order)
class Told(ModelDispatch):
    name, endpoint, fields, path = "shop.Told", "crm", ["number"], "{number}"
"""

FORK = """
from signal_dispatch.backends import threads
if sys.argv[2:]:  # uWSGI forks without calling what is registered for it
    threads._call = lambda hook: None
Order.objects.create(number="parent-1")
backend = backends["default"]
backend.drain(20)
connections.close_all()
worker = backend._worker
with backend._lock:  # as another thread may hold it, at that moment
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            Order.objects.create(number="child")
            backend.drain(20)
            assert backend._worker is not worker
            backends.forget()
            connections.close_all()
            code = 0
        finally:
            os._exit(code)
_pid, status = os.waitpid(pid, 0)
Order.objects.create(number="parent-2")
backend.drain(20)
assert backend._worker is worker
backends.forget()
print("child", os.waitstatus_to_exitcode(status))
"""


def run(source, *arguments, timeout=60):
    done = subprocess.run(
        [sys.executable, "-c", PROLOGUE + source, *arguments],
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("how", [[], ["without hooks"]])
def test_after_a_fork_each_process_has_its_own_threads(receiver, how):
    printed = run(FORK, receiver.url, *how)

    assert printed.split() == ["child", "0"]
    assert [r.path for r in receiver.requests] == ["/parent-1", "/child", "/parent-2"]
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


@pytest.mark.django_db(transaction=True)
def test_a_script_that_ends_at_once_sends_what_it_saved(receiver):
    run("for n in range(5): Order.objects.create(number=str(n))", receiver.url)

    assert sorted(r.path for r in receiver.requests) == [f"/{n}" for n in range(5)]
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


ENDS_WHILE_IT_HANGS = """
settings.SIGNAL_DISPATCH_BACKENDS = {"default": {
    "BACKEND": "signal_dispatch.backends.threads.ThreadsBackend",
    "OPTIONS": {"drain_seconds": 0.3, "max_senders": 1}}}
for n in range(3): Order.objects.create(number=str(n))
"""


@pytest.mark.django_db(transaction=True)
def test_a_process_that_ends_hands_back_what_it_could_not_send(receiver):
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b"{}"))[1]
    try:
        run(ENDS_WHILE_IT_HANGS, receiver.url, timeout=20)
    finally:
        go.set()

    held = [d.held_by != "" for d in Delivery.objects.order_by("id")]
    assert held == [True, False, False], "the first was in flight, its lease runs out"


SAVES_WHEN_THE_THREADS_HAVE_ENDED = """
import atexit
atexit.register(lambda: Order.objects.create(number="late"))  # run last: registered first
Order.objects.create(number="early")
"""


@pytest.mark.django_db(transaction=True)
def test_what_is_saved_after_the_threads_have_ended_is_due_at_once(receiver):
    run(SAVES_WHEN_THE_THREADS_HAVE_ENDED, receiver.url)

    early, late = Delivery.objects.order_by("id")
    assert (early.state, late.state, late.held_by) == ("delivered", "pending", "")


# Work on many deliveries.


def _failed(number):
    order = Order.objects.create(number=f"A-{number}")
    return delivery(object_pk=order.pk, state="failed", available_at=None, attempts=12)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_a_repair_is_begun_at_once_and_made_to_its_end(declare, receiver, monkeypatch):
    monkeypatch.setattr(repair_steps, "STEP", 2)
    made = [_failed(number) for number in range(5)]
    declare(Order)

    repair = ask_for(INTERVENTIONS["retry"], Selection(state="failed"), "default", by="ann")

    receiver.wait_for(5)
    eventually(lambda: Delivery.objects.filter(state="delivered").count() == len(made))
    eventually(lambda: Repair.objects.get(pk=repair.pk).finished_at)
    assert Repair.objects.get(pk=repair.pk).changed == 5


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_a_repair_that_nobody_was_told_of_is_found(declare, receiver):
    _failed(1)
    declare(Order)
    with mock.patch.object(backends, "look_for_repairs"):
        ask_for(INTERVENTIONS["retry"], Selection(state="failed"), "default", by="ann")

    worker = Worker(lambda: scopes.own_scope(["crm"]), max_sleep_seconds=0.05)
    try:
        worker.start()
        receiver.wait_for(1)
    finally:
        worker.stop(5)


# Endpoints that are resumed.


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_where_an_endpoint_is_resumed_it_is_called_at_once(declare, receiver, settings):
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {
            "BACKEND": "signal_dispatch.backends.threads.ThreadsBackend",
            "OPTIONS": {"sweep_seconds": 300},
        }
    }
    declare(Order)
    pausing.pause("crm", by="ann")
    Order.objects.create(number="A-1")
    sweeper = backends["default"]._worker._bookkeeper.sweeper
    eventually(lambda: sweeper.found_nothing and sweeper._next > time.monotonic() + 30)

    with transaction.atomic():
        pausing.resume("crm", by="ann")
        assert sweeper.found_nothing, "others see it when it is committed"

    receiver.wait_for(1)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
def test_a_process_without_threads_starts_none_to_resume(declare, receiver):
    declare(Order)
    delivery()
    pausing.pause("crm", by="ann")
    assert list(backends["default"].check()) == []
    pausing.resume("crm", by="ann")

    assert threads_of_ours() == []


class Odd(ModelDispatch):
    def handle_response(self, delivery, response):
        raise RuntimeError("odd")


@pytest.mark.django_db(transaction=True)
def test_what_a_hook_raised_comes_up_where_its_threads_are_finished(declare, mock_endpoint):
    mock_endpoint("crm").reply(200)
    declare(Order, base=Odd)
    Order.objects.create(number="A-1")

    with pytest.raises(RuntimeError, match="odd"):
        backends["default"].finish()
    assert not backends["default"].finish(), "there is nothing left to end"
