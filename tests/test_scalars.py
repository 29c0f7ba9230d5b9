from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from django.db.models import TextChoices
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe

from signal_dispatch.scalars import to_scalar, to_text
from tests.fieldzoo.models import Animal, Mood
from tests.once import ONCE

pytestmark = ONCE


class Size(TextChoices):
    BIG = "big"


class Colour(Enum):
    RED = "#f00"


class Shade(str, Enum):  # noqa: UP042 - str() of these is not the value
    DARK = "dark"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (1.5, 1.5),
        ("ä", "ä"),
        (Decimal("12.00"), "12.00"),
        (Decimal("0E-8"), "0.00000000"),
        (Decimal("1E+3"), "1000"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4, 5), "03:04:05"),
        (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
        (
            datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-02T03:04:00+02:00",
        ),
        (timedelta(days=1, seconds=3), "P1DT00H00M03S"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (b"\x00\xff", "AP8="),
        (bytearray(b"\x00\xff"), "AP8="),
        (memoryview(b"\x00\xff"), "AP8="),
        (Size.BIG, "big"),
        (Shade.DARK, "dark"),
        (Colour.RED, "#f00"),
        (Mood.WILD, 2),
        (lazystr("later"), "later"),
        (mark_safe("<b>"), "<b>"),
    ],
)
def test_value_becomes_a_scalar_of_exactly_this_type(value, expected):
    scalar = to_scalar(value)

    assert scalar == expected
    assert type(scalar) is type(expected) or isinstance(value, str)


def test_file_becomes_its_name():
    assert to_scalar(Animal(photo="cats/tom.png").photo) == "cats/tom.png"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Decimal("NaN"), Decimal("-inf")])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="is no number"):
        to_scalar(value)


def test_text_that_utf8_has_no_bytes_for_is_refused():
    with pytest.raises(ValueError, match="UTF-8"):
        to_scalar("broken \ud800 text")


@pytest.mark.parametrize("value", [object(), [], {}, 1j, Animal])
def test_type_without_a_form_is_refused_by_its_name(value):
    with pytest.raises(TypeError, match=f"a {type(value).__name__} has no form"):
        to_scalar(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, ""), (True, "true"), (False, "false"), (7, "7"), (Decimal("1.10"), "1.10")],
)
def test_text_is_written_as_json_would_without_quotes(value, expected):
    assert to_text(value) == expected
