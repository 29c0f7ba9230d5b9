"""Keep what somebody asks for to what was there when they were asked whether they mean it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from django.core import signing
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from signal_dispatch.clocks import DatabaseNow, StoredMoment
from signal_dispatch.models import UNFINISHED, Delivery, DeliveryQuerySet, State

_SALT = "signal_dispatch.horizons"


@dataclass(frozen=True, slots=True)
class Horizon:
    """A moment of one outbox: the number of its newest delivery, and its database's time."""

    newest: int
    moment: datetime

    @classmethod
    def of(cls, using: str) -> Self:
        """Return the horizon of this moment."""
        rows = Delivery.objects.using(using).order_by("-pk").annotate(moment=DatabaseNow())
        newest = rows.values_list("pk", "moment").first()
        # Up to 0 there is nothing: then the moment says nothing, and any host's clock will do.
        return cls(*newest) if newest else cls(0, timezone.now())

    @classmethod
    def from_text(cls, text: str, *purpose: str) -> Self:
        """Read what ``as_text()`` wrote; raises ``django.core.signing.BadSignature``."""
        newest, moment = signing.loads(text, salt=_salt(purpose))
        return cls(newest, datetime.fromisoformat(moment))

    def as_text(self, *purpose: str) -> str:
        """Write it for a form, so that it comes back as it is, and for this purpose alone."""
        return signing.dumps([self.newest, self.moment.isoformat()], salt=_salt(purpose))

    @classmethod
    def posted(cls, post: Mapping[str, str], *purpose: str) -> Self | None:
        """Return what the page that asked sends back; None where it sends none."""
        try:
            return cls.from_text(post["horizon"], *purpose)
        except (KeyError, signing.BadSignature):
            return None

    def unmoved(self, rows: DeliveryQuerySet) -> DeliveryQuerySet:
        """Keep those in whose lanes nothing was finished later: each has the head that it had."""
        finished = [state for state in State if state not in UNFINISHED]
        lane = Delivery.objects.using(rows.db).filter(state__in=finished, lane=OuterRef("lane"))
        later = Exists(lane.filter(finished_at__gt=StoredMoment(self.moment)))
        return rows.exclude(~Q(lane=""), later)

    def narrow(self, rows: DeliveryQuerySet) -> DeliveryQuerySet:
        """Keep those that were recorded by then and, if they are finished, were finished by then.

        Who is asked about what failed does not mean what is delivered a moment later.
        """
        stood_then = Q(finished_at__isnull=True) | Q(finished_at__lte=StoredMoment(self.moment))
        return rows.filter(stood_then, pk__lte=self.newest)


def _salt(purpose: Iterable[str]) -> str:
    return "\n".join([_SALT, *purpose])
