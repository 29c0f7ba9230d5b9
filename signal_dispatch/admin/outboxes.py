"""Which database's outbox a page shows: sites may have several, and their numbers overlap."""

from typing import Any
from urllib.parse import urlencode

from django.db import router
from django.http import Http404, HttpRequest

from signal_dispatch.databases import outbox_aliases
from signal_dispatch.models import Delivery

USING_VAR = "using"


def using_of(request: HttpRequest) -> str:
    """Return the alias that the address names, or the one that deliveries are written to.

    Raises ``Http404`` for one that has no outbox.
    """
    default = router.db_for_write(Delivery)
    named = request.GET.get(USING_VAR) or default
    if named != default and named not in outbox_aliases(Delivery):
        raise Http404(f"The database {named!r} has no outbox.")
    return named


def query_for(using: str, **more: Any) -> str:
    """Return the query of an address, which names the database unless it is the usual one."""
    named = {} if using == router.db_for_write(Delivery) else {USING_VAR: using}
    query = urlencode(named | more)
    return f"?{query}" if query else ""


def noted(using: str, message: str) -> str:
    """Write a message for the log, which knows of no outbox: it names one that is not the usual."""
    return message if using == router.db_for_write(Delivery) else f"{using}: {message}"


def entries_of(using: str, entries: Any) -> Any:
    """Keep the entries of the log that are about this outbox."""
    usual = router.db_for_write(Delivery)
    if using != usual:
        return entries.filter(change_message__startswith=noted(using, ""))
    for alias in outbox_aliases(Delivery):
        if alias != usual:
            entries = entries.exclude(change_message__startswith=noted(alias, ""))
    return entries


def choices(using: str, **more: Any) -> list[dict[str, Any]]:
    """Return the outboxes to choose from; none where there is only one. Links carry ``more``."""
    aliases = outbox_aliases(Delivery)
    if len(aliases) < 2:
        return []
    return [
        {"name": a, "query": query_for(a, **more) or "?", "selected": a == using} for a in aliases
    ]
