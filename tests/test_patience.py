"""How long SQLite's one writer is waited for."""

import threading

import pytest
from django.db import DatabaseError, connection, connections
from django.db.backends.signals import connection_created

from signal_dispatch import ModelDispatch, patience
from signal_dispatch.backends import backends
from signal_dispatch.databases import own_transaction
from signal_dispatch.starting import start_thread
from tests.settings import DATABASE
from tests.shop.models import Customer, Order

pytestmark = [
    pytest.mark.skipif(DATABASE != "sqlite", reason="It is about files of SQLite."),
    pytest.mark.django_db(transaction=True),
]


UID = "signal_dispatch.patience.connect"


@pytest.fixture(autouse=True)
def _connected():
    patience.connect()


def found_by(work, start=start_thread):
    """Return what a thread finds out."""
    found = []

    def run():
        try:
            found.append(work())
        except DatabaseError as error:
            found.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    start(thread)
    return thread, found


def busy_timeout():
    with connection.cursor() as cursor:
        return cursor.execute("PRAGMA busy_timeout").fetchone()[0]


@pytest.mark.parametrize(
    ("configured", "start", "timeout"),
    [
        ({}, start_thread, 30_000),
        ({"timeout": 0.5}, start_thread, 30_000),
        ({"timeout": 60}, start_thread, 60_000),
        ({"init_command": "PRAGMA busy_timeout = 70000"}, start_thread, 70_000),
        ({"timeout": 0.5}, threading.Thread.start, 500),
    ],
)
def test_only_our_own_threads_wait_longer_and_never_shorter(
    configured, start, timeout, monkeypatch
):
    options = connection.settings_dict["OPTIONS"]
    monkeypatch.delitem(options, "timeout", raising=False)
    for name, value in configured.items():
        monkeypatch.setitem(options, name, value)

    thread, found = found_by(busy_timeout, start)
    thread.join()

    assert found == [timeout]


def test_a_transaction_of_our_own_outlasts_a_writer_that_keeps_it_waiting(monkeypatch):
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.01)

    def write():
        with own_transaction("default"):
            Customer.objects.create(email="late@example.com")

    with own_transaction("default"):
        Customer.objects.create(email="first@example.com")
        thread, found = found_by(write)
        thread.join(0.5)
        assert found == []
    thread.join(30)

    assert found == [None]


@pytest.mark.usefixtures("as_in_production")
def test_so_do_the_threads_that_send(receiver, declare):
    connection_created.disconnect(dispatch_uid=UID)
    found = []

    class Answered(ModelDispatch):
        def handle_response(self, delivery, response):
            found.append(busy_timeout())

    declare(Order, base=Answered)
    Order.objects.create(number="A-1")
    backends["default"].drain(30)

    assert found == [30_000]


def test_threads_ask_one_after_the_other():
    asking, most, lock = set(), [], threading.Lock()

    def note(execute, sql, *arguments):
        if not sql.startswith("BEGIN"):
            return execute(sql, *arguments)
        with lock:
            asking.add(threading.current_thread())
            most.append(len(asking))
        try:
            return execute(sql, *arguments)
        finally:
            with lock:
                asking.remove(threading.current_thread())

    def write():
        with connection.execute_wrapper(note):
            for _ in range(20):
                with own_transaction("default"):
                    Customer.objects.create(email="a@example.com")

    threads = [found_by(write) for _ in range(4)]
    for thread, _found in threads:
        thread.join(60)

    assert [found for _thread, found in threads] == [[None]] * 4
    assert len(most) == 80
    assert max(most) == 1


def test_a_child_of_a_fork_waits_for_no_thread_that_it_lacks(monkeypatch):
    with patience.turn(connection):
        monkeypatch.setattr("os.getpid", lambda: 1)
        thread, found = found_by(_turn)
        thread.join(10)

    assert found == ["mine"]


def _turn():
    with patience.turn(connection):
        return "mine"


def test_a_request_waits_for_its_turn_no_longer_than_settings_say(monkeypatch):
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "timeout", 0.05)
    with patience.turn(connection):
        theirs, found = found_by(_turn, threading.Thread.start)
        theirs.join(10)
        ours, patiently = found_by(_turn)
        ours.join(0.5)
        assert (found, patiently) == (["mine"], [])
    ours.join(10)

    assert patiently == ["mine"]
