"""How often an engine is tried that refuses."""

import pytest

from signal_dispatch import engines
from signal_dispatch.engines import KEEP_SECONDS, MAX_PAUSE_SECONDS, Engine


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(engines, "monotonic", clock)
    return clock


class Broker:
    """Count the messages, and the times that it was tried or left."""

    def __init__(self):
        self.tried, self.left, self.refuses = 0, 0, False

    def publish(self, using, ids):
        self.tried += 1
        if self.refuses:
            raise ConnectionError("refused")

    def leave(self):
        self.left += 1


@pytest.fixture
def broker():
    return Broker()


@pytest.fixture
def engine(broker, clock):
    return Engine(broker.publish, broker.leave)


def test_one_that_refused_is_left_alone_for_longer_and_longer(engine, broker, clock):
    broker.refuses = True
    pauses = []
    for _refusal in range(8):
        assert not engine.tell("default", [1])
        assert not engine.tell("default", [2])
        pauses.append(engine.open_at - clock.now)
        clock.now = engine.open_at

    assert broker.tried == 8
    assert pauses == [0.5, 1, 2, 4, 8, 10, 10, MAX_PAUSE_SECONDS]


def test_one_that_takes_messages_again_is_trusted_again(engine, broker, clock):
    broker.refuses = True
    engine.tell("default", [1])
    engine.tell("default", [1])
    clock.now = engine.open_at
    broker.refuses = False
    assert not engine.rests
    assert engine.tell("default", [1])
    broker.refuses = True
    engine.tell("default", [1])

    assert engine.open_at == clock.now + 0.5


def test_its_connection_is_idle_a_while_after_the_last_message(engine, broker, clock):
    engine.tell("default", [1])
    assert engine.idle_at == clock.now + KEEP_SECONDS
    engine.close()

    assert engine.idle_at > clock.now + KEEP_SECONDS
    assert broker.left == 1
