"""Payloads: from an instance to plain data, and from plain data to the bytes that are sent."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

from django.db.models import Model, QuerySet

from signal_dispatch.exceptions import PayloadError
from signal_dispatch.lookups import resolve
from signal_dispatch.scalars import to_scalar, to_text

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

_LISTS = (Sequence, Set, ValuesView, Iterator, QuerySet)
_TEXT_AND_BYTES = (str, bytes, bytearray, memoryview)
# Neither models nor series: most values are spared the look at five abstract classes.
_SINGLE = frozenset({str, int, float, bool, type(None), Decimal, datetime, date})
_ENCODER = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def from_fields(
    instance: Model, fields: Iterable[str], *, model: type[Model] | None = None
) -> dict[str, Any]:
    """Build the payload that these look-ups make: flat, its keys as they are written.

    ``pk`` is the instance's as one of ``model``, where that is a parent of its own.
    Values are plain, and as the database will give them back. Raises ``PayloadError``.
    """
    return {name: to_plain(resolve(instance, name, model=model), at=name) for name in fields}


def to_plain(value: Any, *, at: str = "") -> Any:
    """Turn a value into what JSON knows, all the way down.

    Scalars as in ``to_scalar``; model instances are their pk, every kind of series is a list (a
    set a sorted one), keys of mappings are text. Raises ``PayloadError`` that names the place, as
    ``items.0.price`` below ``at``.
    """
    try:
        return _plain(value, at)
    except RecursionError:
        raise PayloadError("The payload contains itself, or is nested too deep.") from None


def encode_json(payload: Any) -> tuple[bytes, str]:
    """Encode as strict, compact JSON in UTF-8 (RFC 8259); return it with its content type."""
    return _json(to_plain(payload)).encode(), JSON


def encode_form(payload: Any) -> tuple[bytes, str]:
    """Encode a flat mapping as an HTML form; return it with its content type.

    A list repeats its key, ``None`` is empty. Raises ``PayloadError`` for what a form can't hold.
    """
    plain = to_plain(payload)
    if not isinstance(plain, dict):
        raise PayloadError(
            f"A form holds names with values; the payload is a {_kind(plain)}. Give a dict, or "
            "use JSON."
        )
    pairs = []
    for name, value in plain.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, (dict, list)):
                raise PayloadError(
                    f"A form is flat; '{name}' holds a {_kind(item)}. Flatten it, or use JSON."
                )
            pairs.append((name, to_text(item)))
    return urlencode(pairs).encode("ascii"), FORM


def decode(body: bytes, content_type: str) -> Any:
    """Decode what ``encode_json`` or ``encode_form`` made; other bodies stay bytes.

    An empty body is ``None``. A name that a form repeats gives a list. Raises ``PayloadError``
    for a body that is not what its content type says.
    """
    kind = media_type(content_type)
    try:
        if not body:
            return None
        if kind == JSON or kind.endswith("+json"):
            return json.loads(body)
        if kind == FORM:
            parsed = parse_qs(body.decode(), keep_blank_values=True, strict_parsing=True)
            return {name: v[0] if len(v) == 1 else v for name, v in parsed.items()}
    except ValueError as error:
        raise PayloadError(f"The body is not {kind}: {error}.") from error
    return body


def fields(body: bytes, content_type: str) -> list[tuple[str, str]]:
    """Decode a body into names with text, as a form has them: what is no text is written as JSON.

    Raises ``PayloadError`` for a body that has no names.
    """
    decoded = decode(body, content_type)
    if decoded is not None and not isinstance(decoded, dict):
        raise PayloadError(
            f"Fields have names with values; the payload is a {_kind(decoded)}. Beside get_files() "
            "it has to be a dict."
        )
    if media_type(content_type) == FORM:
        return parse_qsl(body.decode(), keep_blank_values=True)
    texts = {name: v if isinstance(v, str) else _json(v) for name, v in (decoded or {}).items()}
    return list(texts.items())


def content_type_of(headers: Mapping[str, str]) -> str:
    """Return the content type that stands in headers, or nothing."""
    return next((v for name, v in headers.items() if name.lower() == "content-type"), "")


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in small letters."""
    return content_type.partition(";")[0].strip().lower()


def _json(plain: Any) -> str:
    return _ENCODER.encode(plain)


def _plain(value: Any, at: str) -> Any:
    if type(value) not in _SINGLE:
        if isinstance(value, Model):
            return _plain(value.pk, at)
        if isinstance(value, Mapping):
            return _mapping(value, at)
        if isinstance(value, _LISTS) and not isinstance(value, _TEXT_AND_BYTES):
            items = [_plain(item, _place(at, index)) for index, item in enumerate(value)]
            return sorted(items, key=_rank) if isinstance(value, Set) else items
    try:
        return to_scalar(value)
    except (TypeError, ValueError) as error:
        raise _error(error, at) from error


def _mapping(value: Mapping[Any, Any], at: str) -> dict[str, Any]:
    plain = {(name := _key(key, at)): _plain(item, _place(at, name)) for key, item in value.items()}
    if len(plain) != len(value):
        raise _error(ValueError("two keys are the same as text"), at)
    return plain


def _key(key: Any, at: str) -> str:
    try:
        if key is None:
            raise TypeError("None is no key")
        return to_text(key)
    except (TypeError, ValueError) as error:
        raise _error(error, at) from error


def _place(at: str, step: object) -> str:
    return f"{at}.{step}" if at else str(step)


def _rank(item: Any) -> tuple[str, Any]:
    """Order the items of a set, so that one set makes the same bytes in every process."""
    return _kind(item), str(item) if isinstance(item, list) else item


def _error(error: Exception, at: str) -> PayloadError:
    return PayloadError(f"The payload can't be sent: {error}, at '{at or '(its top)'}'.")


def _kind(value: Any) -> str:
    return type(value).__name__
