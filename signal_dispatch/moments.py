"""Moments in columns, in UTC as the database's own clock writes them."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone


# Not subscripted: Django's field is generic in the stubs only.
class MomentField(models.DateTimeField):  # type: ignore[type-arg]
    """A moment that is UTC in the table and the site's time in Python.

    Where a database has no type for it, Django keeps the time of ``TIME_ZONE`` without
    ``USE_TZ``, or that of ``DATABASES[alias]["TIME_ZONE"]``. The clocks in our SQL know of neither.
    """

    def deconstruct(self) -> Any:
        """Leave migrations with the column that it is."""
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.DateTimeField", args, kwargs

    def get_db_converters(self, connection: Any) -> list[Callable[..., Any]]:
        """Read as UTC what Django takes for another time."""
        return [] if _is_utc(connection) else [_read]

    def get_db_prep_value(self, value: Any, connection: Any, prepared: Any = False) -> Any:  # noqa: FBT002 - Django's
        """Write in UTC what Django would write as another time."""
        value = value if prepared else self.get_prep_value(value)
        if isinstance(value, datetime) and not _is_utc(connection):
            if timezone.is_naive(value):
                value = timezone.make_aware(value, timezone.get_default_timezone())
            value = timezone.make_naive(value, UTC)
        return super().get_db_prep_value(value, connection, prepared=True)


def _is_utc(connection: Any) -> bool:
    """Say whether Django itself keeps moments as they are."""
    return connection.features.supports_timezones or connection.timezone is UTC


def _read(value: Any, expression: Any, connection: Any) -> datetime | None:
    if value is None:
        return None
    moment: datetime = value.replace(tzinfo=UTC)
    zone = timezone.get_default_timezone()
    return moment if settings.USE_TZ else timezone.make_naive(moment, zone)
