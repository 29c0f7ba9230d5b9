"""Say through which managers a dispatch hears nothing, for its checks and its page."""

from typing import Any

from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.events import Event
from signal_dispatch.managers import without_bulk

# Deletes in bulk are heard whatever the manager, and events of one's own come from no manager.
_WRITTEN_IN_BULK = {Event.CREATED, Event.UPDATED}


def silent_managers(dispatch: ModelDispatch[Any]) -> list[str]:
    """Return the names of managers of its model whose bulk operations make no call of a dispatch.

    None where it would hear of none of them anyway.
    """
    return without_bulk(dispatch.model) if _WRITTEN_IN_BULK & set(dispatch.events) else []
