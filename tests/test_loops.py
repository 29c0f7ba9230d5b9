"""When a thread of ours works, waits, and lets go of its connections, whatever its work is."""

from itertools import count
from threading import Condition

import pytest
from django.db import OperationalError

from signal_dispatch import loops
from signal_dispatch.loops import KEEP_SECONDS, Loop


class Connections:
    """Stand for the thread's connections: those of the test stay as they are."""

    def __init__(self):
        self.open = False

    def all(self, **kwargs):
        return [self] if self.open else []

    def close_all(self):
        self.open = False

    @property
    def connection(self):
        return self


class Work(Condition):
    """Note for how long it would have waited; the clock goes on by that."""

    def __init__(self):
        super().__init__()
        self.now = 1000.0
        self.waits = []

    def wait(self, timeout=None):
        self.waits.append(timeout)
        self.now += timeout
        return False

    def wait_for(self, predicate, timeout=None):
        self.waits.append(timeout)


class Thread(Loop):
    """Do its steps one after the other, each at its time, and end; what is an error is raised."""

    def __init__(self, monkeypatch):
        super().__init__(Work())
        self.clock = self._work
        self.connections = Connections()
        self.steps, self.done = [], []
        monkeypatch.setattr(loops, "connections", self.connections)
        monkeypatch.setattr(loops, "refresh_connections", lambda: None)
        monkeypatch.setattr(loops, "monotonic", lambda: self.clock.now)

    def _is_ending(self):
        return not self.steps

    def _next_at(self):
        return self.steps[0][0]

    def _step(self):
        self.connections.open = True
        _at, what = self.steps.pop(0)
        if isinstance(what, Exception):
            raise what
        self.done.append((what, self.clock.now))

    def _end(self):
        self.done.append(("end", self.clock.now))


@pytest.fixture
def thread(monkeypatch):
    return Thread(monkeypatch)


def test_it_works_when_there_is_something_to_do_and_ends_when_it_is_told_to(thread):
    thread.steps = [(0, "one"), (1000.5, "two")]
    thread.run()

    assert thread.done == [("one", 1000), ("two", 1000.5), ("end", 1000.5)]
    assert not thread.connections.open


def test_its_connections_are_closed_after_a_while_without_work(thread, monkeypatch):
    thread.steps = [(0, "one"), (1060, "two")]
    monkeypatch.setattr(thread, "_end", lambda: None)
    thread.run()

    assert thread.clock.waits == [KEEP_SECONDS, 60 - KEEP_SECONDS], "with one, and without"


def test_what_is_due_now_is_done_at_once_though_the_clock_goes_on(thread, monkeypatch):
    ticks = count(1000)
    monkeypatch.setattr(loops, "monotonic", lambda: float(next(ticks)))
    monkeypatch.setattr(thread, "_next_at", lambda: float(next(ticks)))
    monkeypatch.setattr(thread.clock, "wait", lambda seconds: pytest.fail(f"waits {seconds} s"))
    thread.steps = [(0, "one")]
    thread.run()

    assert [what for what, _at in thread.done] == ["one", "end"]


@pytest.mark.parametrize("error", [OperationalError("gone away"), ZeroDivisionError("a bug")])
def test_no_error_ends_it_and_pauses_grow_with_the_failures_up_to_a_limit(thread, caplog, error):
    thread.steps = [*[(0, error)] * 8, (0, "well"), (0, error)]
    thread.run()

    assert thread.clock.waits == [0.5, 1, 2, 4, 8, 10, 10, 10, 0.5]
    assert [what for what, _at in thread.done] == ["well", "end"]
    assert f"can't be reached ({type(error).__name__}" in caplog.text


def test_after_an_error_its_connections_are_others(thread, monkeypatch):
    seen = []
    monkeypatch.setattr(thread, "_rest", lambda seconds: seen.append(thread.connections.open))
    thread.steps = [(0, OperationalError("gone away"))]
    thread.run()

    assert seen == [False]
