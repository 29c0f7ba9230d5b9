"""What is shown of long work: a bar on a terminal, else a line now and then."""

import importlib.util
import signal
import threading
from io import StringIO

import pytest

from signal_dispatch.management import progress as module
from signal_dispatch.management.progress import progress
from signal_dispatch.management.stopping import until_told
from tests.once import ONCE

pytestmark = ONCE


class Terminal(StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 50.0

    monkeypatch.setattr(module, "monotonic", lambda: Clock.now)
    return Clock


def test_without_a_terminal_there_is_a_line_each_second(clock):
    out = StringIO()
    with progress(out, "retrying", 1000) as advance:
        for number in range(1, 6):
            clock.now += 0.4
            advance(100, number)

    assert out.getvalue() == "retrying: 300 of 1000, at 3\n"


def test_on_a_terminal_there_is_a_bar_that_tells_the_place():
    out = Terminal()
    with progress(out, "retrying", 1000) as advance:
        advance(500, "A-7")
        advance(500, "B-9")

    assert "retrying: 100%" in out.getvalue()
    assert "at B-9" in out.getvalue()


def test_without_the_library_a_terminal_gets_lines(clock, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = Terminal()
    with progress(out, "retrying", 10) as advance:
        clock.now += 2
        advance(1, 1)

    assert out.getvalue() == "retrying: 1 of 10, at 1\n"


def test_quiet_is_quiet(clock):
    out = Terminal()
    with progress(out, "retrying", 10, quiet=True) as advance:
        clock.now += 2
        advance(1, 1)

    assert out.getvalue() == ""


def test_the_first_signal_is_noted_and_the_second_has_its_way():
    before = signal.getsignal(signal.SIGTERM)
    with until_told() as told:
        assert not told
        signal.raise_signal(signal.SIGTERM)
        assert told == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        signal.raise_signal(signal.SIGINT)

    assert told == [signal.SIGTERM, signal.SIGINT]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_thread_that_can_hear_no_signals_works_all_the_same():
    heard = []

    def work():
        with until_told() as told:
            heard.append(told)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert heard == [[]]
