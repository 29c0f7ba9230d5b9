"""Which outboxes a command works on: those of the databases that are named, or all there are."""

from collections.abc import Sequence

from django.conf import settings
from django.core.management.base import CommandError
from django.db import Error

from signal_dispatch.databases import outbox_aliases
from signal_dispatch.management.choices import refuse_unknown
from signal_dispatch.models import Delivery
from signal_dispatch.registry import registry
from signal_dispatch.status import has_outbox


def outboxes(named: Sequence[str] | None) -> Sequence[str]:
    """Return the databases that are named, or all that have an outbox.

    Raises ``CommandError`` for one that is not known, can't be reached or has none; a database
    that is not named may well have none.
    """
    refuse_unknown("--database", named, settings.DATABASES)
    models = {dispatch.model for dispatch in registry}
    found = [alias for alias in named or outbox_aliases(Delivery, models) if _has_outbox(alias)]
    if len(found) < len(named or ["one"]):
        missing = sorted(set(named or settings.DATABASES) - set(found))
        raise CommandError(
            f"There is no outbox in {', '.join(missing)}: run 'manage.py migrate --database "
            f"{missing[0]}'{' and so on' if missing[1:] else ''}."
        )
    return found


def _has_outbox(alias: str) -> bool:
    try:
        return has_outbox(alias)
    except Error as error:
        text = " ".join(str(error).split())
        raise CommandError(f"The database {alias!r} can't be reached: {text}") from error
