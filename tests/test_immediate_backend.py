"""Sending in the thread that commits: what a script sees, and what stays for later."""

import threading
from contextlib import contextmanager

import pytest
from django.db import OperationalError, connection, connections, transaction

from signal_dispatch import lanes
from signal_dispatch.backends.immediate import ImmediateBackend
from signal_dispatch.lanes import Released
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.shop.models import Order


@pytest.fixture
def immediate(settings, receiver, declare, as_in_production):
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {"BACKEND": "signal_dispatch.backends.immediate.ImmediateBackend"}
    }
    declare(Order, path="{number}")
    return receiver


def states():
    return list(Delivery.objects.order_by("id").values_list("state", flat=True))


@pytest.mark.django_db(transaction=True)
def test_the_answer_is_there_when_save_returns(immediate):
    Order.objects.create(number="A-1")

    assert states() == ["delivered"]
    assert not [t for t in threading.enumerate() if t.name.startswith("signal_dispatch-")]


@pytest.mark.django_db(transaction=True)
def test_a_failure_raises_nothing_and_a_later_commit_tries_again(immediate, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": immediate.url, "RETRY": {"delays": [0, 0, 0]}}
    }
    immediate.reply(503)
    Order.objects.create(number="A-1")
    assert states() == ["pending"]
    assert Delivery.objects.get().attempts == 2, "due again at once, so it was tried again"
    immediate.reply(200)
    Order.objects.create(number="A-2")

    assert states() == ["delivered", "delivered"]


@pytest.mark.django_db(transaction=True)
def test_a_commit_takes_only_a_few_of_those_that_are_due_along(immediate):
    for number in range(ImmediateBackend.due_limit + 5):
        delivery(path=f"old-{number}")
    Order.objects.create(number="A-1")

    assert states().count("pending") == 5
    assert len(immediate.requests) == ImmediateBackend.due_limit + 1


@pytest.mark.django_db(transaction=True)
def test_threads_that_release_lanes_at_once_take_no_row_twice(monkeypatch, as_in_production):
    for lane in ("a", "b"):
        delivery(lane=lane, state="waiting", available_at=None)
    backend, taken, first_of_each = ImmediateBackend("default"), {}, lanes.first_of_each

    def release(name, names):
        taken[name] = lanes.release("default", names, backend.lease("default")).taken
        connections.close_all()

    def let_the_other_be_faster(*arguments):
        monkeypatch.setattr(lanes, "first_of_each", first_of_each)
        found = first_of_each(*arguments)
        other = threading.Thread(target=release, args=("other", ["a"]))
        other.start()
        other.join(10)
        return found

    monkeypatch.setattr(lanes, "first_of_each", let_the_other_be_faster)
    mine = lanes.release("default", ["a", "b"], backend.lease("default")).taken

    assert [d.lane for d in mine] == ["b"]
    assert [d.lane for d in taken["other"]] == ["a"]


def refuse(*args):
    raise OperationalError("gone away")


@contextmanager
def locked(made):
    """Hold a row's lock as a transaction does that may replace it, and is rolled back."""
    held, done = threading.Event(), threading.Event()

    def hold():
        with transaction.atomic():
            Delivery.objects.select_for_update().get(pk=made.pk)
            held.set()
            done.wait(30)
            transaction.set_rollback(True)
        connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(10)
        yield
    finally:
        done.set()
        thread.join(10)


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite locks no rows.")
def test_a_lane_that_somebody_had_locked_is_looked_at_again_with_a_later_commit(immediate):
    delivery(lane="a")
    waiting = delivery(lane="a", state="waiting", available_at=None)
    with locked(waiting):
        Order.objects.create(number="A-1")
        assert states() == ["delivered", "waiting", "delivered"]
        Order.objects.create(number="A-2")
        assert states()[1] == "waiting", "it is locked still"
    Order.objects.create(number="A-3")

    assert states() == ["delivered"] * 5


@pytest.mark.django_db(transaction=True, databases=["default", "other"])
def test_it_is_looked_at_once_more_and_in_its_own_database(immediate, monkeypatch):
    looked, release = [], lanes.release

    def find_it_locked_once(using, names, lease):
        first = "a" in names and not looked
        looked.extend((using, name) for name in names if name == "a")
        return Released(blocked=frozenset("a")) if first else release(using, names, lease)

    monkeypatch.setattr(lanes, "release", find_it_locked_once)
    delivery(lane="a")
    Order.objects.create(number="A-1")
    Order.objects.using("other").create(number="A-1")
    assert looked == [("default", "a")]
    Order.objects.create(number="A-2")
    Order.objects.create(number="A-3")

    assert looked == [("default", "a")] * 2


@pytest.mark.django_db(transaction=True)
def test_what_the_database_refused_is_looked_at_with_a_later_commit(immediate, monkeypatch):
    delivery(lane="a", state="waiting", available_at=None)
    backend = ImmediateBackend("default")
    backend._blocked = {("default", "a")}
    with monkeypatch.context() as patch:
        patch.setattr(lanes, "release", refuse)
        with pytest.raises(OperationalError):
            backend.committed([], "default", fresh=True)
    backend.committed([], "default", fresh=True)

    assert states() == ["delivered"]


@pytest.mark.parametrize(("debug", "ids"), [(True, []), (False, ["signal_dispatch.W003"])])
def test_a_site_is_warned_that_requests_would_wait(settings, debug, ids):
    settings.DEBUG = debug

    assert [warning.id for warning in ImmediateBackend("default").check()] == ids
