"""How people hear of an incident: a line in the log, and a signal whose receivers hurt nobody."""

import logging
import threading

import pytest
from django.db import connections

from signal_dispatch import alarms
from signal_dispatch.alarms import Alarm, AlarmKind, sound
from signal_dispatch.signals import alarm_raised
from tests.once import ONCE

pytestmark = ONCE
FAILING = Alarm(AlarmKind.ENDPOINT_FAILING, "crm", "", "default", "The endpoint 'crm' fails.")
RECOVERED = Alarm(AlarmKind.ENDPOINT_RECOVERED, "crm", "", "default", "It is well again.")


@pytest.fixture
def connect():
    connected = []

    def connect(receiver):
        alarm_raised.connect(receiver, weak=False)
        connected.append(receiver)

    yield connect
    for receiver in connected:
        alarm_raised.disconnect(receiver)


def test_an_alarm_is_one_line_at_level_error_and_recovery_one_below(caplog):
    sound(FAILING, apart=False)
    sound(RECOVERED, apart=True)

    assert [(r.levelno, r.action, r.alarm, r.endpoint, r.getMessage()) for r in caplog.records] == [
        (logging.ERROR, "alarm", "endpoint_failing", "crm", "Alarm: The endpoint 'crm' fails."),
        (logging.ERROR, "alarm", "endpoint_recovered", "crm", "Alarm: It is well again."),
    ]


@pytest.mark.parametrize("apart", [False, True])
def test_a_receiver_that_raises_keeps_the_alarm_from_no_other(connect, apart):
    heard = []

    def broken(alarm, **kwargs):
        raise ZeroDivisionError

    connect(broken)
    connect(lambda alarm, **kwargs: heard.append(alarm))
    sound(FAILING, apart=apart)
    alarms.finish()

    assert heard == [FAILING]


def test_a_receiver_that_takes_its_time_keeps_nobody_waiting_but_the_end_of_the_process(connect):
    go_on, heard = threading.Event(), []

    def slow(alarm, **kwargs):
        assert go_on.wait(10)
        heard.append(threading.current_thread().name)

    connect(slow)
    sound(FAILING, apart=True)
    assert heard == []
    go_on.set()
    alarms.finish()

    assert heard == ["alarm"]


def test_the_end_does_not_wait_for_ever(connect, monkeypatch):
    go_on = threading.Event()
    connect(lambda alarm, **kwargs: go_on.wait(30))
    sound(FAILING, apart=True)
    monkeypatch.setattr(alarms, "END_SECONDS", 0.0)

    alarms.finish()

    assert not go_on.is_set()
    go_on.set()
    monkeypatch.undo()
    alarms.finish()


def test_a_receiver_s_connection_is_closed(connect, transactional_db):
    used = []

    def asks(alarm, **kwargs):
        connection = connections["default"]
        connection.ensure_connection()
        used.append(connection)

    connect(asks)
    sound(FAILING, apart=True)
    alarms.finish()

    assert used[0] is not connections["default"]
    assert used[0].connection is None


def test_without_receivers_there_is_no_thread():
    sound(FAILING, apart=True)

    assert "alarm" not in {thread.name for thread in threading.enumerate()}
