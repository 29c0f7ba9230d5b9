"""What a person can do about deliveries, by name: for pages, and for work in the background."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from signal_dispatch.cancelling import cancel, heads, skip
from signal_dispatch.horizons import Horizon
from signal_dispatch.models import DeliveryQuerySet
from signal_dispatch.repairing import may_go_back, retry
from signal_dispatch.repointing import Target, movable, repoint
from signal_dispatch.resending import rebuild, rebuildable, resend, resendable
from signal_dispatch.selecting import is_unheld

#: What an intervention needs to know beside the rows, by name.
Options = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Intervention:
    """One of them. ``run`` takes rows, who does it, and options, and returns how many it changed.

    ``affected`` narrows rows to those that it may change; ``is_repeatable`` says that a second
    time changes nothing more.
    """

    name: str
    label: Any
    sentence: Any
    done: Any
    permission: str
    affected: Callable[[DeliveryQuerySet], DeliveryQuerySet]
    run: Callable[[DeliveryQuerySet, str, Options], int]
    is_repeatable: bool = True
    #: Whether it is about the heads of the rows' lanes, rather than about the rows.
    is_of_lanes: bool = False
    #: What is to be known where it takes its time, because all that match are meant.
    meanwhile: Any = ""


def _cancel(rows: DeliveryQuerySet, by: str, options: Options) -> int:
    return cancel(rows, _("Cancelled by %s.") % by)


def _skip(rows: DeliveryQuerySet, by: str, options: Options) -> int:
    return skip(rows, _("Skipped by %s, so that what waits behind it goes on.") % by)


_ALL = (
    Intervention(
        "retry",
        gettext_lazy("Retry now"),
        gettext_lazy(
            "They are due at once: what failed or was cancelled, and what is scheduled for later. "
            "Method, path, headers and body stay as they were recorded. One whose answer was kept "
            "is handled again, without a call. Left as they are: those in hand, those that were "
            "replaced, and those whose later state the remote has."
        ),
        gettext_lazy("Made due at once."),
        "can_retry",
        lambda rows: rows.filter(may_go_back()),
        lambda rows, by, options: retry(rows),
    ),
    Intervention(
        "cancel",
        gettext_lazy("Cancel"),
        gettext_lazy("They are never sent. What waits behind them goes on. Those in hand stay."),
        gettext_lazy("Cancelled."),
        "can_cancel",
        lambda rows: rows.unfinished().filter(is_unheld()),
        _cancel,
        meanwhile=gettext_lazy(
            "It takes a while, and what is due meanwhile is sent. Pause the endpoint first to stop "
            "that."
        ),
    ),
    Intervention(
        "resend",
        gettext_lazy("Send again"),
        gettext_lazy(
            "A new delivery each, with the same call and a new uid, behind what its lane has. "
            "Only what is finished is sent again, and nothing whose sensitive values were masked."
        ),
        gettext_lazy("Sent again, as a new delivery."),
        "can_resend",
        resendable,
        lambda rows, by, options: resend(rows),
        is_repeatable=False,
    ),
    Intervention(
        "rebuild",
        gettext_lazy("Rebuild from the object"),
        gettext_lazy(
            "The call is built anew by the code of now, from what the object holds when it is "
            "sent. One that was tried before is a new delivery with a new uid. Only what is "
            "finished is rebuilt, and nothing that tells of a deletion."
        ),
        gettext_lazy("Rebuilt from the object."),
        "can_rebuild",
        rebuildable,
        lambda rows, by, options: rebuild(rows),
        is_repeatable=False,
    ),
    Intervention(
        "skip",
        gettext_lazy("Skip what blocks the lane"),
        gettext_lazy(
            "Whatever is at the head of their lanes is cancelled where others wait behind it, and "
            "the next one goes out. A head that is in hand stays."
        ),
        gettext_lazy("Skipped what blocked its lane."),
        "can_cancel",
        lambda rows: heads(rows).filter(is_unheld()),
        _skip,
        is_repeatable=False,
        is_of_lanes=True,
    ),
    Intervention(
        "repoint",
        gettext_lazy("Give to another dispatch or endpoint"),
        gettext_lazy(
            "What is to be sent stays as it was taken. Those in hand stay where they are."
        ),
        gettext_lazy("Given to %(target)s."),
        "can_repoint",
        movable,
        lambda rows, by, options: repoint(rows, Target(**options)),
    ),
)

INTERVENTIONS: Mapping[str, Intervention] = {each.name: each for each in _ALL}


def meant(intervention: Intervention, rows: DeliveryQuerySet, horizon: Horizon) -> DeliveryQuerySet:
    """Keep the rows that were meant by whoever was asked then."""
    rows = horizon.narrow(rows)
    return horizon.unmoved(rows) if intervention.is_of_lanes else rows
