"""Spans of time, as people read them."""

import pytest

from signal_dispatch.spans import span
from tests.once import ONCE


@ONCE
@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (3600, "1 h 0 min"),
        (5 * 3600 + 240, "5 h 4 min"),
        (49 * 3600, "2 d 1 h"),
    ],
)
def test_spans_have_one_or_two_units(seconds, text):
    assert span(seconds) == text
