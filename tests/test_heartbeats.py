"""Which rows say that a worker lives, how often they are written, and when they go."""

import logging
import os

import pytest
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext

from signal_dispatch import claims, heartbeats
from signal_dispatch.backends import backends
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.heartbeats import BEAT_SECONDS, FORGET_SECONDS, Heartbeat
from signal_dispatch.models import WorkerProcess
from signal_dispatch.scopes import Scope
from tests.deliveries import seconds_until
from tests.shop.models import Order

SCOPE = Scope("staging", frozenset({"erp", "crm"}), frozenset(), frozenset({"tenant"}))

pytestmark = pytest.mark.django_db


def worker_process(**values):
    defaults = {"name": "web:7:abcd", "host": "web", "pid": 7, "concurrency": 4}
    now = {"started_at": DatabaseNow(-100), "seen_at": DatabaseNow()}
    return WorkerProcess.objects.create(**defaults | now | values)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(heartbeats, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def heartbeat(clock):
    return Heartbeat(lambda: SCOPE, concurrency=16)


def test_a_beat_says_who_lives_since_when_and_what_it_serves(heartbeat, clock):
    clock.now += 50
    heartbeat.beat("default")

    (row,) = WorkerProcess.objects.all()
    assert row.name == str(row) == claims.holder()
    assert (row.pid, row.environment, row.concurrency) == (os.getpid(), "staging", 16)
    assert row.host == row.name.split(":")[0]
    assert row.endpoints == ["crm", "erp", "tenant"]
    assert 49 < (row.seen_at - row.started_at).total_seconds() < 51
    assert abs(seconds_until(row.seen_at)) < 300


def test_it_beats_no_more_often_than_it_must(heartbeat, clock):
    heartbeat.beat("default")
    WorkerProcess.objects.update(seen_at=DatabaseNow(-5000))
    clock.now += BEAT_SECONDS - 1
    with CaptureQueriesContext(connection) as queries:
        heartbeat.beat("default")
    assert len(queries) == 0
    clock.now += 1
    heartbeat.beat("default")

    (row,) = WorkerProcess.objects.all()
    assert seconds_until(row.seen_at) > -4000


def test_a_clean_end_takes_the_own_row_away_and_no_other(heartbeat):
    other = worker_process()
    heartbeat.beat("default")
    heartbeat.stop()

    assert WorkerProcess.objects.get() == other


def test_one_that_never_beat_asks_nothing_at_its_end(heartbeat):
    with CaptureQueriesContext(connection) as queries:
        heartbeat.stop()
    assert len(queries) == 0


@pytest.mark.django_db(transaction=True)
def test_a_row_is_taken_away_though_the_word_that_it_was_written_is_lost(heartbeat):
    def lose(execute, sql, *rest):
        answer = execute(sql, *rest)
        if sql.startswith("INSERT"):
            raise OperationalError("gone")
        return answer

    with connections["default"].execute_wrapper(lose):
        heartbeat.beat("default")
    assert WorkerProcess.objects.exists()
    heartbeat.stop()

    assert not WorkerProcess.objects.exists()


def test_whoever_beats_takes_away_what_has_been_dead_for_long(heartbeat):
    worker_process(seen_at=DatabaseNow(-FORGET_SECONDS - 10))
    dead = worker_process(name="web:8:abcd", seen_at=DatabaseNow(-FORGET_SECONDS / 2))
    heartbeat.beat("default")

    names = set(WorkerProcess.objects.values_list("name", flat=True))
    assert names == {dead.name, claims.holder()}


@pytest.mark.django_db(transaction=True)
def test_a_database_that_refuses_hurts_nobody_and_is_not_pressed(heartbeat, clock, caplog):
    caplog.set_level(logging.WARNING, logger="signal_dispatch")
    asked = []

    def refuse(execute, *rest):
        asked.append(rest)
        raise OperationalError("gone")

    with connections["default"].execute_wrapper(refuse):
        heartbeat.beat("default")
        heartbeat.beat("default")
        assert len(asked) == 1
    clock.now += BEAT_SECONDS
    heartbeat.beat("default")
    assert WorkerProcess.objects.exists()

    with connections["default"].execute_wrapper(refuse):
        heartbeat.stop()
    assert [record.action for record in caplog.records] == ["heartbeat_failed"] * 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("as_in_production")
@pytest.mark.skipif(
    "connection.vendor == 'sqlite' and connection.is_in_memory_db()",
    reason="Threads are locked out of an in-memory database.",
)
def test_a_process_that_saves_or_serves_requests_does_not_beat(declare, receiver):
    declare(Order)
    backends.start()
    Order.objects.create(number="A-1")
    backends["default"].drain(30)

    assert len(receiver.requests) == 1
    assert not WorkerProcess.objects.exists()
