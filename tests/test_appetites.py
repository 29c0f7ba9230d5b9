"""How large the batches are that are taken from the table."""

from types import SimpleNamespace

import pytest

from signal_dispatch import appetites
from signal_dispatch.appetites import MOMENT_SECONDS, MOST, Appetite
from tests.once import ONCE

pytestmark = ONCE


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(appetites, "monotonic", lambda: clock.now)
    return clock


def sizes_after(clock, *batches, share=0.5):
    """Return the sizes after batches of which such a share was begun before the next one."""
    appetite, sizes, begun = Appetite(32), [], 0
    for seconds, filled in batches:
        clock.now += seconds
        begun += int(share * appetite.size)
        appetite.note(filled=filled, begun=begun)
        sizes.append(appetite.size)
    return sizes


def test_it_grows_while_batches_are_gone_in_a_moment(clock):
    quick = MOMENT_SECONDS / 2
    sizes = sizes_after(clock, *[(quick, True)] * 6)

    assert sizes == [32, 64, 128, 256, 256, 256]
    assert sizes[-1] == MOST * 32


@pytest.mark.parametrize(
    "batch", [(MOMENT_SECONDS, True), (0.0, False)], ids=["it takes its time", "not filled"]
)
def test_it_stays_where_batches_take_their_time_or_are_not_filled(clock, batch):
    assert sizes_after(clock, *[batch] * 4) == [32, 32, 32, 32]


def test_it_stays_where_batches_of_two_kinds_follow_and_calls_take_their_time(clock):
    assert sizes_after(clock, *[(0.01, True)] * 4, share=0.49) == [32, 32, 32, 32]


def test_it_is_the_least_again_when_calls_become_slow(clock):
    slow = 4 * MOMENT_SECONDS + 0.1
    sizes = sizes_after(clock, *[(0.1, True)] * 3, (slow, True), (0.1, True))

    assert sizes == [32, 64, 128, 32, 64]


def test_half_of_a_batch_is_enough_until_the_next_look():
    assert Appetite(32).enough == 16
