"""Primary keys of any kind, in one column."""

import json
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.db import models

_ENCODER = DjangoJSONEncoder(ensure_ascii=False, separators=(",", ":"))


# Not subscripted: Django's field is generic in the stubs only.
class ObjectKeyField(models.CharField):  # type: ignore[type-arg]
    """Any primary key, kept as JSON text and read as the value, composite keys too."""

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        """Return the key as ``filter(pk=...)`` takes it."""
        return None if value is None else key_from_text(value)

    def get_prep_value(self, value: Any) -> str | None:
        """Return the key as JSON text."""
        return None if value is None else key_as_text(value)

    def value_to_string(self, obj: models.Model) -> str:
        """Return the text that fixtures hold."""
        return key_as_text(self.value_from_object(obj))


def key_as_text(pk: Any) -> str:
    """Write a primary key as JSON text: the same key always gives the same text."""
    return str(pk) if type(pk) is int else _ENCODER.encode(pk)  # most are


def key_from_text(text: str) -> Any:
    """Read a primary key from JSON text, as ``filter(pk=...)`` takes it."""
    key = json.loads(text)
    return tuple(key) if isinstance(key, list) else key


def plain_key(pk: Any) -> Any:
    """Return the key as it comes back from the outbox: a UUID is a string there."""
    return pk if isinstance(pk, int | str) else key_from_text(key_as_text(pk))
