"""Save the model. The call follows: after the commit, in order, at least once."""

from typing import TYPE_CHECKING, Any

from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.events import Change, Event
from signal_dispatch.outcomes import Outcome, Response
from signal_dispatch.registry import register
from signal_dispatch.retries import RetryPolicy
from signal_dispatch.suppression import suppressed

if TYPE_CHECKING:
    from signal_dispatch.enqueueing import enqueue

__version__ = "0.1.0"

__all__ = [
    "Change",
    "Event",
    "ModelDispatch",
    "Outcome",
    "Response",
    "RetryPolicy",
    "enqueue",
    "register",
    "suppressed",
]


def __getattr__(name: str) -> Any:
    # The outbox's models can't be imported before the apps are loaded.
    if name == "enqueue":
        from signal_dispatch.enqueueing import enqueue

        return enqueue
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
