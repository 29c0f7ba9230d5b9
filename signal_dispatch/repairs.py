"""Work on many deliveries that a person asked for: kept in the outbox, done beside the traffic."""

import logging
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic
from typing import Self

from django.db import Error, models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.databases import is_refused_by_test
from signal_dispatch.moments import MomentField

logger = logging.getLogger("signal_dispatch")

#: Makes one step in an outbox, and says whether there is more to do. Set when the app is ready:
#: what a step does stands on everything else.
work: Callable[[str], bool] | None = None

#: Seconds after which a step of a process that vanished is made again by another.
TAKEN_SECONDS = 60.0
#: Between two steps, so many times what the last one took is left to the calls.
PAUSE_TIMES = 0.5


class RepairQuerySet(models.QuerySet["Repair"]):
    """Repairs by where they are."""

    def open(self) -> Self:
        """Keep those that are not finished."""
        return self.filter(finished_at__isnull=True)

    def free(self) -> Self:
        """Keep those that no process is working on just now."""
        return self.open().filter(Q(taken_until__isnull=True) | Q(taken_until__lt=DatabaseNow()))


class Repair(models.Model):
    """One intervention on all deliveries that match a selection, and how far it is."""

    id = models.BigAutoField(primary_key=True)
    environment = models.CharField(_("environment"), max_length=63, blank=True, default="")
    # The name of an intervention, and what it needs to know beside the rows.
    what = models.CharField(_("what"), max_length=32)
    options = models.JSONField(_("options"), default=dict, blank=True)
    selection = models.JSONField(_("selection"), default=dict, blank=True)
    by = models.CharField(_("by"), max_length=150, blank=True, default="")
    # As it was counted when it was asked for, perhaps "more than 10000".
    expected = models.CharField(_("expected"), max_length=32, blank=True, default="")
    # Nothing recorded or finished later is meant.
    until_id = models.BigIntegerField(_("until number"))
    until = MomentField(_("until"))
    last_id = models.BigIntegerField(_("last number"), default=0)
    looked_at = models.PositiveBigIntegerField(_("looked at"), default=0)
    changed = models.PositiveBigIntegerField(_("changed"), default=0)
    taken_by = models.CharField(_("taken by"), max_length=150, blank=True, default="")
    taken_until = MomentField(_("taken until"), null=True, blank=True)
    created_at = MomentField(_("created at"))
    finished_at = MomentField(_("finished at"), null=True, blank=True, db_index=True)
    # Why it ended before its end.
    error = models.CharField(_("error"), max_length=500, blank=True, default="")

    objects = RepairQuerySet.as_manager()

    class Meta:
        verbose_name = _("repair")
        verbose_name_plural = _("repairs")

    def __str__(self) -> str:
        return f"{self.what} {self.selection}"


class Repairer:
    """See to the repairs of some outboxes, step by step. Belongs to the bookkeeper's thread.

    At rest it looks only when the outbox is looked into anyway, every ``look_seconds`` at most.
    """

    def __init__(self, aliases: Callable[[], Iterable[str]], look_seconds: float) -> None:
        self._aliases = aliases
        self._look_seconds = look_seconds
        self._next_look = monotonic() + look_seconds
        self._asked = False
        #: The outboxes that may have more to do.
        self._left: list[str] = []
        #: When it has to go on, by ``monotonic()``.
        self.next_at = inf

    def ask(self) -> None:
        """Look at once. For any thread that holds the lock."""
        self._asked = True
        self.next_at = monotonic()

    @property
    def found_nothing(self) -> bool:
        """Whether no look is under way or asked for: the last one found nothing more to do."""
        return not (self._asked or self._left)

    def repair(self) -> bool:
        """Make one step, if there is something to do, and say whether something was done.

        Raises nothing: calls are worth more.
        """
        if work is None or not self._is_looking():
            return False
        began, using = monotonic(), self._left[0]
        done = self._step(work, using)
        if not done:
            self._left.pop(0)
        self.next_at = inf
        if self._left:
            self.next_at = monotonic() + PAUSE_TIMES * (monotonic() - began)
        elif self._asked:  # meanwhile
            self.next_at = monotonic()
        return done

    def _is_looking(self) -> bool:
        """Say whether there is an outbox to look into; begins a look where it is time."""
        if not self._left and (self._asked or monotonic() >= self._next_look):
            self._next_look, self.next_at = monotonic() + self._look_seconds, inf
            # In this order: who waits for both to be over must not come between.
            self._left = list(self._aliases())
            self._asked = False
        return bool(self._left)

    def _step(self, work: Callable[[str], bool], using: str) -> bool:
        try:
            return work(using)
        except Exception as error:
            if is_refused_by_test(error):
                return False
            self._next_look = monotonic() + TAKEN_SECONDS
            logger.warning(
                "A repair in the outbox of the database %r was broken off (%s: %s). It goes on "
                "within %g s.",
                using,
                type(error).__name__,
                error,
                TAKEN_SECONDS,
                exc_info=None if isinstance(error, Error) else error,
                extra={"action": "repair_failed"},
            )
            return False
