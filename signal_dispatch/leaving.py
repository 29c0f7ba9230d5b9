"""Say why an intervention leaves deliveries as they are."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, IntegerField, Q, Value, When
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from signal_dispatch.models import UNFINISHED, Delivery, DeliveryQuerySet, State
from signal_dispatch.selecting import is_unheld

_IN_HAND = (Q(state__in=UNFINISHED) & ~is_unheld(), gettext_lazy("in the hand of a sender"))
_NOT_FINISHED = (Q(state__in=UNFINISHED), gettext_lazy("not finished"))
_FINISHED = (~Q(state__in=UNFINISHED), gettext_lazy("finished"))
_DELIVERED = (Q(state=State.DELIVERED), gettext_lazy("delivered"))
_REPLACED = (Q(replaced_by__isnull=False), gettext_lazy("replaced by another one"))
_DUE = (Q(state__in=UNFINISHED), gettext_lazy("due, or behind another one"))
_NO_LANE = (Q(lane=""), gettext_lazy("in no lane"))
_TAKEN = gettext_lazy("taken by a sender meanwhile")
_OUTRUN = gettext_lazy("the remote has a later state, or is about to get it")


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why one intervention leaves deliveries as they are: the first condition that holds counts.

    ``else_`` is for those that it does not affect and of which no condition holds, ``late`` for
    those that it turned out to leave all the same.
    """

    conditions: tuple[tuple[Q, Any], ...]
    else_: Any
    late: Any
    #: What the affected and the chosen have in common.
    key: str = "pk"


REASONS: Mapping[str, Reasons] = {
    "retry": Reasons(
        (_IN_HAND, _DUE, _DELIVERED, _REPLACED),
        gettext_lazy("a deletion, whose call was never built"),
        _OUTRUN,
    ),
    "cancel": Reasons((_IN_HAND,), _FINISHED[1], _TAKEN),
    "resend": Reasons(
        (_IN_HAND, _NOT_FINISHED),
        gettext_lazy("its call was never built"),
        gettext_lazy("its sensitive values were masked"),
    ),
    "rebuild": Reasons((_IN_HAND, _NOT_FINISHED), gettext_lazy("it tells of a deletion"), _OUTRUN),
    "skip": Reasons(
        (_FINISHED, _NO_LANE),
        gettext_lazy("its lane has nothing in front that may be skipped"),
        _TAKEN,
        key="lane",
    ),
    "repoint": Reasons((), _IN_HAND[1], _TAKEN),
}


def left_alone(name: str, rows: DeliveryQuerySet, affected: Iterable[Delivery]) -> Counter[str]:
    """Count those of the rows that an intervention does not affect, by why; before it is made."""
    reasons = REASONS[name]
    words = [*(word for _condition, word in reasons.conditions), reasons.else_]
    found = (When(each, then=Value(n)) for n, (each, _word) in enumerate(reasons.conditions))
    last = Value(len(words) - 1)
    which = Case(*found, default=last, output_field=IntegerField())
    served = {getattr(delivery, reasons.key) for delivery in affected}
    of_each = rows.order_by("pk").annotate(which=which).values_list(reasons.key, "which")
    return Counter(str(words[n]) for key, n in of_each if key not in served)


def sentence(left: Mapping[str, int]) -> str:
    """Say how many are left as they are, and why."""
    parts = [_("%(number)d (%(why)s)") % {"number": n, "why": w} for w, n in left.items()]
    return _("Left as they are: %s.") % ", ".join(parts) if parts else ""
