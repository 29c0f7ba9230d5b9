"""What a thread of ours inherits from whoever starts it."""

import signal
import sys
import threading
from types import ModuleType

from signal_dispatch.starting import start_thread
from tests.once import ONCE

pytestmark = ONCE


def blocked():
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def blocked_in_a_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(blocked()))
    assert start_thread(thread)
    thread.join(10)
    return found[0]


def test_under_uwsgi_signals_are_for_other_threads(monkeypatch):
    monkeypatch.setitem(sys.modules, "uwsgi", ModuleType("uwsgi"))
    before = blocked()

    assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= blocked_in_a_thread()
    assert blocked() == before


def test_one_that_can_not_be_started_leaves_the_signals_as_they_were(monkeypatch):
    def refuse():
        raise RuntimeError("can't start new thread")

    monkeypatch.setitem(sys.modules, "uwsgi", ModuleType("uwsgi"))
    thread, before = threading.Thread(), blocked()
    monkeypatch.setattr(thread, "start", refuse)

    assert not start_thread(thread)
    assert blocked() == before


def test_elsewhere_they_come_to_any(monkeypatch):
    monkeypatch.delitem(sys.modules, "uwsgi", raising=False)
    # A process that a hook starts inherits what is blocked.
    assert blocked_in_a_thread() == blocked()
