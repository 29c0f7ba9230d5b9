"""What is said of endpoints that no page is needed for."""

import pytest

from signal_dispatch import faring
from signal_dispatch.faring import Calls
from signal_dispatch.recent_calls import percentile
from tests.once import ONCE


@ONCE
def test_a_percentile_is_the_number_that_so_many_do_not_exceed():
    hundred = range(1, 101)

    assert [percentile(hundred, percent) for percent in (50, 95, 100)] == [50, 95, 100]
    assert [percentile([7], percent) for percent in (1, 50, 95)] == [7, 7, 7]
    assert percentile([1, 2, 3], 50) == 2
    assert percentile([], 50) is None


@ONCE
@pytest.mark.parametrize(
    ("buckets", "half", "most"),
    [((0, 0, 0), 3, 3), ((100, 0, 0), 0, 0), ((50, 45, 0), 0, 1), ((49, 1, 44), 1, 3)],
)
def test_steps_say_within_which_time_calls_were_over(buckets, half, most):
    calls = Calls(100, 100, buckets)

    assert (calls.within(50), calls.within(95)) == (half, most)
    assert Calls(0, 0, (0, 0, 0)).within(50) is None


@ONCE
@pytest.mark.django_db
def test_nothing_is_asked_about_nothing():
    assert faring.queues_of("default", [], 10) == {}
