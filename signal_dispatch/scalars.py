"""Scalars: the one form in which a single value is told to the outside, in bodies and in paths."""

import math
from base64 import b64encode
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import singledispatch
from typing import Any
from uuid import UUID

from django.db.models.fields.files import FieldFile
from django.utils.duration import duration_iso_string
from django.utils.functional import Promise

Scalar = str | int | float | bool | None


def to_scalar(value: Any) -> Scalar:
    """Turn one value into what JSON knows.

    Decimals are strings with all their places and no exponent; dates and times ISO 8601, with the
    offset they have (UTC is ``+00:00``); timedeltas ISO 8601 durations; bytes base64; files their
    name; enums and choices their value. Raises ``TypeError`` for any other type, and
    ``ValueError`` for NaN, infinity, and text that UTF-8 can't encode.
    """
    if type(value) is str and value.isascii():  # most are
        return value
    return _scalar(value.value if isinstance(value, Enum) else value)


def to_text(value: Any) -> str:
    """Turn one value into text: ``to_scalar`` written as JSON would, without quotes.

    ``None`` is empty. Raises what ``to_scalar`` raises.
    """
    scalar = to_scalar(value)
    if scalar is None:
        return ""
    return str(scalar).lower() if isinstance(scalar, bool) else str(scalar)


@singledispatch
def _scalar(value: Any) -> Scalar:
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


@_scalar.register(type(None))
@_scalar.register(bool)
@_scalar.register(int)
def _(value: Any) -> Scalar:
    return value  # type: ignore[no-any-return]


@_scalar.register(str)
@_scalar.register(Promise)
def _(value: Any) -> Scalar:
    text = str(value)
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"text that UTF-8 can't encode ({error.reason})") from error
    return text


@_scalar.register
def _(value: float) -> Scalar:
    if not math.isfinite(value):
        raise ValueError(f"{value} is no number")
    return value


@_scalar.register
def _(value: Decimal) -> Scalar:
    if not value.is_finite():
        raise ValueError(f"{value} is no number")
    return format(value, "f")  # str() makes 0E-8 of a zero with eight places


@_scalar.register(date)
@_scalar.register(time)
def _(value: Any) -> Scalar:
    return str(value.isoformat())


@_scalar.register
def _(value: timedelta) -> Scalar:
    return duration_iso_string(value)


@_scalar.register(UUID)
@_scalar.register(FieldFile)
def _(value: Any) -> Scalar:
    return str(value)


@_scalar.register(bytes)
@_scalar.register(bytearray)
@_scalar.register(memoryview)
def _(value: Any) -> Scalar:
    return b64encode(value).decode("ascii")
