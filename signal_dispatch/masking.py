"""Mask what a dispatch calls sensitive, in payloads that need not be sent any more."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

from signal_dispatch import payloads
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.exceptions import PayloadError
from signal_dispatch.models import Delivery
from signal_dispatch.redacting import MASK
from signal_dispatch.registry import registry

#: The mask as JSON and other text hold it, and as a form does.
_MARKS = (MASK.encode(), quote_plus(MASK).encode())


def masked_body(delivery: Delivery) -> bytes | None:
    """Return what may be kept of a delivery's body; None where all of it may."""
    dispatch = registry.find(delivery.dispatch, delivery.model)
    if dispatch is None or not dispatch.sensitive or not delivery.body:
        return None
    return masked(dispatch, bytes(delivery.body), delivery.headers)


def is_masked(delivery: Delivery) -> bool:
    """Say whether what the remote is to read was masked in this row, so that it can't be sent."""
    body = bytes(delivery.body)
    return any(mark in body for mark in _MARKS) and masked_body(delivery) == body


def masked(dispatch: ModelDispatch[Any], body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return a body without the values that its dispatch calls sensitive.

    Of a body that can't be read nothing is left.
    """
    names = list(dispatch.sensitive)
    if not names or not body:
        return body
    if dispatch.envelope == "standard":
        names = [f"data.{name}" for name in names]
    content_type = payloads.content_type_of(headers)
    try:
        payload = payloads.decode(body, content_type)
    except PayloadError:
        payload = body
    if isinstance(payload, bytes):
        return MASK.encode()
    if payloads.media_type(content_type) == payloads.FORM:
        pairs = parse_qsl(body.decode(), keep_blank_values=True)
        return urlencode([(n, MASK if n in names else value) for n, value in pairs]).encode()
    return payloads.encode_json(_masked(payload, names))[0]


def _masked(value: Any, names: Sequence[str]) -> Any:
    """Mask names in a mapping; through a list, in each of its items."""
    if isinstance(value, list):
        return [_masked(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _masked_at(key, item, names) for key, item in value.items()}


def _masked_at(key: str, value: Any, names: Sequence[str]) -> Any:
    if key in names:
        return MASK
    # A key may hold full stops itself.
    below = [name.removeprefix(f"{key}.") for name in names if name.startswith(f"{key}.")]
    return _masked(value, below) if below else value
