"""The numbers of a breaker."""

import pytest

from signal_dispatch.breakers import Breaker
from tests.once import ONCE

pytestmark = ONCE


@pytest.mark.parametrize(
    ("attempts", "failed", "opens"),
    [
        (10, 7, True),
        (10, 6, False),
        (9, 9, False),
        (100, 70, True),
        (100, 69, False),
        (11, 7, False),
        (0, 0, False),
    ],
)
def test_it_opens_at_ten_attempts_and_seventy_percent_failed(attempts, failed, opens):
    assert Breaker().opens_at(attempts, failed) is opens


def test_a_share_is_reached_exactly_though_floats_are_not():
    assert 0.07 * 100 > 7
    assert Breaker(share=0.07).opens_at(100, 7)


@pytest.mark.parametrize(
    ("attempts", "failed", "near"), [(1, 1, True), (0, 0, False), (10, 3, False), (10, 4, True)]
)
def test_half_of_the_share_is_near(attempts, failed, near):
    assert Breaker().is_near(attempts, failed) is near


def test_a_setting_is_a_dict_of_numbers_or_none():
    assert Breaker.from_setting({}) == Breaker(10, 0.7, 300.0, 30.0)
    assert Breaker.from_setting({"attempts": 3, "pause": 5}) == Breaker(attempts=3, pause=5.0)
    assert Breaker.from_setting(None) is None


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (True, "must be a dict of a breaker's numbers, or None"),
        ({"failures": 5}, "does not know failures: it takes attempts, share, window, pause"),
        ({"attempts": 0}, "holds 'attempts', which must be a whole number, at least 1"),
        ({"share": 0}, "holds 'share', which must be a number above 0, and no more than 1"),
        ({"share": 1.1}, "holds 'share'"),
        ({"share": True}, "holds 'share'"),
        ({"window": -1}, "holds 'window', which must be more than 0 seconds"),
        ({"pause": "30"}, "holds 'pause', which must be a number of seconds"),
    ],
)
def test_anything_else_is_refused_with_what_is_wrong(value, told):
    with pytest.raises((TypeError, ValueError), match=told):
        Breaker.from_setting(value)
