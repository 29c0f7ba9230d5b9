"""Make one step of a repair: the next few deliveries of its selection."""

from django.db.models import F
from django.utils.translation import gettext as _

from signal_dispatch import claims
from signal_dispatch.backends import backends
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.conf import settings
from signal_dispatch.databases import own_transaction
from signal_dispatch.horizons import Horizon
from signal_dispatch.interventions import INTERVENTIONS, Intervention, Options, meant
from signal_dispatch.models import Delivery, storable
from signal_dispatch.repairs import TAKEN_SECONDS, Repair
from signal_dispatch.selecting import Selection

#: Deliveries that are looked at in one step; what is recorded meanwhile waits for its end.
STEP = 100
#: Seconds that finished repairs are kept.
KEEP_SECONDS = 30 * 86400.0


def ask_for(
    intervention: Intervention,
    selection: Selection,
    using: str,
    *,
    by: str,
    expected: str = "",
    options: Options | None = None,
    horizon: Horizon | None = None,
) -> Repair:
    """Have an intervention made on all that match now, or did by then; return what keeps it."""
    repairs = Repair.objects.using(using)
    repairs.filter(finished_at__lt=DatabaseNow(-KEEP_SECONDS)).delete()
    horizon = horizon or Horizon.of(using)
    repair = repairs.create(
        environment=settings.environment,
        what=intervention.name,
        options=dict(options or {}),
        selection=selection.given(),
        by=by,
        expected=expected,
        until_id=horizon.newest,
        until=horizon.moment,
        created_at=DatabaseNow(),
    )
    backends.look_for_repairs(using)
    return repair


def stop(repair_id: int, using: str, *, by: str) -> bool:
    """End a repair where it is; False where it has ended already."""
    open_ = Repair.objects.using(using).open().filter(pk=repair_id)
    return bool(open_.update(finished_at=DatabaseNow(), error=_("Stopped by %s.") % by))


def step(using: str) -> bool:
    """Make one step of the oldest repair, and say whether there may be more to do.

    A step that is broken off is made again, by whoever looks after ``TAKEN_SECONDS``: where that
    would change more than once, all of it is one transaction.
    """
    repair = _take(using)
    if repair is None:
        return False
    intervention = INTERVENTIONS.get(repair.what)
    try:
        if intervention is None:
            raise ValueError(f"This code knows no intervention {repair.what!r}.")
        if intervention.is_repeatable:
            _advance(repair, intervention, using)
        else:
            with own_transaction(using):
                _advance(repair, intervention, using)
    except (ValueError, TypeError) as error:  # a target or a filter that is none any more
        mine = Repair.objects.using(using).open().filter(pk=repair.pk)
        mine.update(finished_at=DatabaseNow(), error=storable(str(error))[:500])
    return True


def _take(using: str) -> Repair | None:
    free = Repair.objects.using(using).free().filter(environment=settings.environment)
    repair = free.order_by("pk").first()
    if repair is None:
        return None
    taken = free.filter(pk=repair.pk, last_id=repair.last_id).update(
        taken_by=claims.holder(), taken_until=DatabaseNow(TAKEN_SECONDS)
    )
    return repair if taken else None


def _advance(repair: Repair, intervention: Intervention, using: str) -> None:
    horizon = Horizon(repair.until_id, repair.until)
    rows = meant(intervention, Selection.of(repair.selection).rows(using), horizon)
    left = rows.filter(pk__gt=repair.last_id).order_by("pk")
    ids = list(left.values_list("pk", flat=True)[:STEP])
    chosen = Delivery.objects.using(using).filter(pk__in=ids)
    changed = intervention.run(chosen, repair.by, repair.options) if ids else 0
    ended = len(ids) < STEP
    # Whoever stopped it meanwhile, or took it over, is not overruled.
    mine = Repair.objects.using(using).open().filter(pk=repair.pk, last_id=repair.last_id)
    mine.update(
        last_id=ids[-1] if ids else repair.last_id,
        looked_at=F("looked_at") + len(ids),
        changed=F("changed") + changed,
        taken_by="",
        taken_until=None,
        finished_at=DatabaseNow() if ended else None,
    )
