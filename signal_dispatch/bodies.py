"""Write bodies and headers of calls for people to read."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from django.utils.translation import gettext as _

from signal_dispatch.redacting import MASK, is_confidential

#: Characters of a body that are shown.
SHOWN = 20_000


def readable(body: bytes) -> str:
    """Return JSON with line breaks, other text as it is, and of other bytes the number."""
    if not body:
        return ""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return _("(%d bytes that are no text)") % len(body)
    with suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + "\n" + _("(more is not shown)")


def masked(headers: Mapping[str, Any], secret: Iterable[str] = ()) -> list[tuple[str, str]]:
    """Return the headers, without the values of those that may let somebody in."""
    names = {name.lower() for name in secret}
    return [
        (name, MASK if name.lower() in names or is_confidential(name) else str(value))
        for name, value in headers.items()
    ]
