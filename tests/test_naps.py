"""How long whoever looks sleeps until the next look."""

import pytest

from signal_dispatch import naps
from signal_dispatch.naps import MIN_SLEEP_SECONDS, Naps


@pytest.fixture(autouse=True)
def share(monkeypatch):
    monkeypatch.setattr(naps, "share", lambda: 0.5)


@pytest.mark.parametrize(
    ("wait", "sleep"),
    [(0.0, MIN_SLEEP_SECONDS), (-3.0, MIN_SLEEP_SECONDS), (0.5, 0.5), (10.0, 9.0)],
)
def test_it_is_until_something_is_due_or_a_little_sooner(wait, sleep):
    assert Naps(60.0, eager=False).after(wait) == sleep


def test_at_rest_it_is_a_little_longer_than_the_longest():
    assert Naps(60.0, eager=False).after(60.0) == 66.0


def test_one_who_is_eager_sleeps_longer_and_longer_after_a_find():
    eager = Naps(0.3, eager=True)

    assert eager.after(0.0) == MIN_SLEEP_SECONDS
    assert [round(eager.after(0.3), 3) for _ in range(4)] == [0.1, 0.2, 0.33, 0.33]
    assert eager.after(0.0) == MIN_SLEEP_SECONDS
