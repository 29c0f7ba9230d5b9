"""The package's settings, each a property with its default. Nothing is read at import."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from signal_dispatch import readers
from signal_dispatch.exceptions import InvalidSettings

ValueT = TypeVar("ValueT")

PREFIX = "SIGNAL_DISPATCH_"

#: Seconds that a lease must outlast the longest attempt by, before it and after it.
MARGIN_SECONDS = 2.0

DEFAULT_BACKENDS: Mapping[str, Mapping[str, Any]] = {
    "default": {"BACKEND": "signal_dispatch.backends.threads.ThreadsBackend"}
}
DEFAULT_RETENTION: Mapping[str, timedelta] = {
    "delivered": timedelta(days=7),
    "failed": timedelta(days=30),
}


class Settings:
    """Read, check and remember the settings; each property raises ``InvalidSettings``."""

    @cached_property
    def endpoints(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the remote APIs by alias, as written; ``signal_dispatch.endpoints`` reads them."""
        return _dict_of_dicts("ENDPOINTS", {}, 'such as {"crm": {"URL": "https://..."}}')

    @cached_property
    def backends(self) -> Mapping[str, Mapping[str, Any]]:
        """Return who sends after the commit, by alias."""
        return _dict_of_dicts("BACKENDS", DEFAULT_BACKENDS, 'such as {"default": {"BACKEND": ...}}')

    @cached_property
    def lease_seconds(self) -> float:
        """Return how long a delivery belongs to the process that took it."""
        return _read("LEASE_SECONDS", readers.seconds, 60)

    @cached_property
    def retention(self) -> Mapping[str, timedelta | None]:
        """Return how long finished deliveries are kept, by ``delivered`` and ``failed``.

        ``None`` is for ever; cancelled ones are kept as delivered ones are.
        """
        value = _get("RETENTION", DEFAULT_RETENTION)
        if not isinstance(value, Mapping):
            raise _invalid("RETENTION", 'must be a dict such as {"delivered": timedelta(days=7)}.')
        for name, kept in value.items():
            if name not in DEFAULT_RETENTION:
                raise _invalid("RETENTION", f"does not know {name!r}: use 'delivered' or 'failed'.")
            if kept is not None and (not isinstance(kept, timedelta) or kept < timedelta()):
                sentence = "must be a timedelta, not a negative one, or None to keep them for ever."
                raise _invalid(f'RETENTION["{name}"]', sentence)
        return {**DEFAULT_RETENTION, **value}

    @cached_property
    def environment(self) -> str:
        """Return the name of this installation; only rows that bear it are sent."""
        value = _get("ENVIRONMENT", "")
        return "" if value == "" else _read("ENVIRONMENT", readers.text)

    @cached_property
    def rate_storage(self) -> str:
        """Return where rates are shared, as the library limits takes it; "" for each process."""
        value = _get("RATE_STORAGE", "")
        return "" if value == "" else _read("RATE_STORAGE", readers.text)

    def forget(self, *, setting: str = PREFIX, **kwargs: Any) -> None:
        """Read everything anew from now on, if it is one of ours that changed."""
        if setting.startswith(PREFIX):
            # Not cleared: what a thread reads meanwhile goes with the old ones.
            self.__dict__ = {}


settings = Settings()
setting_changed.connect(settings.forget, dispatch_uid="signal_dispatch.conf")


def own_environment() -> str:
    """Return the name of this installation, for a row that is made by hand."""
    return settings.environment


def _get(name: str, default: Any) -> Any:
    return getattr(django_settings, PREFIX + name, default)


def _read(name: str, reader: Callable[[Any], ValueT], default: Any = None) -> ValueT:
    try:
        return reader(_get(name, default))
    except (TypeError, ValueError) as error:
        raise _invalid(name, str(error)) from error


def _dict_of_dicts(
    name: str, default: Mapping[str, Mapping[str, Any]], example: str
) -> Mapping[str, Mapping[str, Any]]:
    value = _get(name, default)
    if not isinstance(value, Mapping):
        raise _invalid(name, f"must be a dict, {example}.")
    for alias, entry in value.items():
        if not isinstance(alias, str) or not isinstance(entry, Mapping):
            raise _invalid(f"{name}[{alias!r}]", f"must be a dict under a string, {example}.")
    return value


def _invalid(name: str, sentence: str) -> InvalidSettings:
    return InvalidSettings(f"{PREFIX}{name} {sentence}")
