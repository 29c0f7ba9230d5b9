"""Rows only: ``manage.py dispatch_worker`` processes send them."""

from collections.abc import Sequence

from signal_dispatch import lanes
from signal_dispatch.backends.base import BaseBackend
from signal_dispatch.models import State
from signal_dispatch.queueing import Recorded


class DeferredBackend(BaseBackend):
    """Leave everything to worker processes."""

    left_to = "dispatch_worker"

    def committed(self, recorded: Sequence[Recorded], using: str, *, fresh: bool) -> None:
        """Look again into the lanes whose head may be settled by now."""
        waiting = {r.delivery.lane for r in recorded if r.delivery.state == State.WAITING}
        if waiting:
            lanes.release(using, waiting, None)
