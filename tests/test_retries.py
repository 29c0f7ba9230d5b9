from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from signal_dispatch.retries import RetryPolicy, parse_retry_after
from tests.once import ONCE

pytestmark = ONCE

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = 86_400


def test_default_schedule_is_twelve_attempts_over_three_days():
    policy = RetryPolicy()

    seconds, minutes, hours = (0, 5, 30), (2, 10, 30), (2, 5, 10, 14, 20, 24)
    assert policy.attempts == 12
    assert policy.delays == (*seconds, *(60 * n for n in minutes), *(3600 * n for n in hours))
    assert 3 * DAY < sum(policy.delays) < 4 * DAY


def test_delay_before_each_attempt_without_jitter():
    policy = RetryPolicy(delays=[0, 5, 30], jitter=0)

    assert [policy.delay_before(n) for n in range(5)] == [None, 0, 5, 30, None]


def test_jitter_only_lengthens():
    policy = RetryPolicy(delays=[10], jitter=0.5)

    assert policy.delay_before(attempt=1, random=lambda: 0.0) == 10
    assert policy.delay_before(1, random=lambda: 1.0) == 15


def test_jitter_leaves_an_immediate_attempt_immediate():
    assert RetryPolicy(delays=[0], jitter=1).delay_before(1, random=lambda: 1.0) == 0


def test_lists_are_stored_as_tuples_so_that_equal_policies_are_equal():
    assert RetryPolicy(delays=[0, 5]) == RetryPolicy(delays=(0.0, 5.0))
    assert hash(RetryPolicy(delays=[1])) == hash(RetryPolicy(delays=(1,)))


def test_exponential_starts_at_once_and_is_capped():
    policy = RetryPolicy.exponential(attempts=6, first=2, factor=3, cap=20)

    assert policy.delays == (0, 2, 6, 18, 20, 20)


def test_exponential_of_a_single_attempt_makes_it_at_once():
    assert RetryPolicy.exponential(1, 2, 3, 20).delays == (0,)


def test_exponential_takes_the_jitter_of_any_policy():
    assert RetryPolicy.exponential(2, 1, 2, 60).jitter == RetryPolicy().jitter
    assert RetryPolicy.exponential(2, 1, 2, 60, jitter=0.5).jitter == 0.5


def test_exponential_survives_more_attempts_than_a_float_could_count():
    assert RetryPolicy.exponential(5000, 1, 10, 60).delays[-1] == 60


@pytest.mark.parametrize("attempts", [0, -1])
def test_exponential_needs_an_attempt(attempts):
    with pytest.raises(ValueError, match=r"^'attempts' must be at least 1\.$"):
        RetryPolicy.exponential(attempts, 1, 2, 60)


@pytest.mark.parametrize("attempts", [True, 2.5, "3"])
def test_exponential_needs_a_whole_number(attempts):
    with pytest.raises(TypeError, match=r"^'attempts' must be a whole number\.$"):
        RetryPolicy.exponential(attempts, 1, 2, 60)


@pytest.mark.parametrize("name", ["first", "factor", "cap"])
def test_exponential_names_the_argument_that_is_no_number(name):
    arguments = {"attempts": 3, "first": 1, "factor": 2, "cap": 60}

    with pytest.raises(TypeError, match=rf"^'{name}' must be a number\.$"):
        RetryPolicy.exponential(**arguments | {name: "2"})


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (
            {"delays": []},
            ValueError,
            "'delays' must hold at least one delay: that of the first attempt.",
        ),
        ({"delays": "0,5"}, TypeError, "'delays' must be a list of seconds."),
        ({"delays": 5}, TypeError, "'delays' must be a list of seconds."),
        ({"delays": ["5"]}, TypeError, "each of 'delays' must be a number."),
        ({"delays": [True]}, TypeError, "each of 'delays' must be a number."),
        ({"delays": [-1]}, ValueError, "each of 'delays' must be finite and not negative."),
        ({"delays": [10**400]}, ValueError, "each of 'delays' must be finite and not negative."),
        (
            {"delays": [float("nan")]},
            ValueError,
            "each of 'delays' must be finite and not negative.",
        ),
        (
            {"delays": [float("inf")]},
            ValueError,
            "each of 'delays' must be finite and not negative.",
        ),
        ({"jitter": 1.1}, ValueError, "'jitter' must be a share between 0 and 1."),
        ({"jitter": -0.1}, ValueError, "'jitter' must be finite and not negative."),
        ({"jitter": None}, TypeError, "'jitter' must be a number."),
    ],
)
def test_impossible_policies_are_refused(arguments, error, sentence):
    with pytest.raises(error) as caught:
        RetryPolicy(**arguments)
    assert str(caught.value) == sentence


def test_setting_may_be_a_policy_or_its_arguments():
    policy = RetryPolicy(delays=[0, 1], jitter=0)

    assert RetryPolicy.from_setting(policy) is policy
    assert RetryPolicy.from_setting({"delays": [0, 1], "jitter": 0}) == policy


def test_setting_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"^must be a RetryPolicy or a dict of its arguments\.$"):
        RetryPolicy.from_setting([0, 5])


def test_setting_with_an_unknown_argument_names_it():
    with pytest.raises(ValueError, match=r"^does not know delay, n: it takes delays, jitter\.$"):
        RetryPolicy.from_setting({"delay": [0], "n": 1})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        (" 7\t", 7),
        ("0", 0),
        ("9" * 5000, DAY),
        ("86400", DAY),
        ("86401", DAY),
        ("Sun, 01 Mar 2026 12:01:00 GMT", 60),
        ("Sunday, 01-Mar-26 12:01:00 GMT", 60),
        ("Sun Mar  1 12:01:00 2026", 60),
        ("Sun, 01 Mar 2026 14:01:00 +0200", 60),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Sun, 01 Mar 2099 11:00:00 GMT", DAY),
    ],
)
def test_retry_after_is_read(value, seconds):
    assert parse_retry_after(value, NOW) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "-5",
        "1.5",
        "1e3",
        "\u0663",
        "+5",
        "5X",
        "\u00a05",
        "2026-03-01T12:01:00Z",
        "Sun, 99 Mar 2026",
    ],
)
def test_retry_after_that_is_garbage_is_ignored(value):
    assert parse_retry_after(value, NOW) is None


def test_retry_after_is_not_undercut_across_time_zones():
    moment = format_datetime(NOW + timedelta(minutes=5), usegmt=True)
    elsewhere = NOW.astimezone(datetime.strptime("+0530", "%z").tzinfo)

    assert parse_retry_after(moment, elsewhere) == 300
