"""Say which deliveries are meant: what a person filters by, and what a long job carries along."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import MAXYEAR, MINYEAR, date, datetime, time, timedelta
from typing import Any, Self
from uuid import UUID

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.insertion import quoted_table
from signal_dispatch.keys import key_as_text, key_from_text, plain_key
from signal_dispatch.models import UNFINISHED, Delivery, DeliveryQuerySet, State, storable
from signal_dispatch.moments import MomentField

#: What may stand for a state: whichever of ``UNFINISHED`` it is.
ANY_UNFINISHED = "unfinished"
#: Ids are given out in the order of ``created_at`` but for what is recorded at the same moment.
_DISORDER = 1000
_TIMES = ("since", "until", "finished_since")
_LONGEST_ID = 19  # digits; what has as many may be more than a column holds


@dataclass(frozen=True, slots=True)
class Selection:
    """Which deliveries are meant; ``None`` asks for nothing.

    ``state`` may be ``unfinished``, too: pending or waiting. ``object_pk`` is JSON text, as in the
    table. ``since`` and ``until`` are about when they were recorded: days, both included, or
    moments (ISO 8601), of the current time zone unless they name one. ``finished_since`` is the
    same about when they were finished. ``q`` is what a person typed: a uid, a number, an object's
    key, or ``shop.order:7``.
    """

    state: str | None = None
    environment: str | None = None
    endpoint: str | None = None
    dispatch: str | None = None
    event: str | None = None
    error_class: str | None = None
    model: str | None = None
    object_pk: str | None = None
    since: str | None = None
    until: str | None = None
    finished_since: str | None = None
    q: str | None = None

    def __post_init__(self) -> None:
        for name in _TIMES:
            text = getattr(self, name)
            if text is not None:
                _moment(text)
        if self.object_pk is not None:
            key_from_text(self.object_pk)

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Self:
        """Read a selection by its names; raises ``ValueError`` for what is none."""
        known = [field.name for field in fields(cls)]
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is not known. Known: {', '.join(known)}.")
        for name, value in given.items():
            if not isinstance(value, str):  # such as a stored one that somebody changed
                raise ValueError(f"{name!r} must be text, and is {value!r}.")
        values = {name: storable(value) for name, value in given.items()}
        return cls(
            **{name: value for name, value in values.items() if name != "q" or value.strip()}
        )

    def given(self) -> dict[str, str]:
        """Return what is asked for, by name, as ``of()`` takes it."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}

    def told(self) -> dict[str, str]:
        """Return what is asked for by the names that a person sees."""
        return {_in_words(name): text for name, text in self.given().items()}

    def parted(self) -> tuple[Self, dict[str, str]]:
        """Part what an index leads to, in the order of ids, from what rows are passed over for.

        The second is values by column, empty where an index leads to all that is meant.
        """
        if self.object_pk is not None or self.q is not None:
            return self, {}
        given = self.given()
        led = {name: given.pop(name) for name in ("state", *_TIMES) if name in given}
        return type(self)(**led), given

    def rows(self, using: str) -> DeliveryQuerySet:
        """Return the deliveries that are meant."""
        return self.narrow(Delivery.objects.using(using).all())

    def narrow(self, rows: DeliveryQuerySet) -> DeliveryQuerySet:
        """Keep those of the rows that are meant."""
        rows = rows.filter(**self._equal())
        if self.q is not None:
            rows = rows.filter(_meant_by(self.q.strip()))
        if self.finished_since is not None:
            # The states are named so that the index on them and the time answers.
            finished = [state for state in State if state not in UNFINISHED]
            rows = rows.filter(state__in=finished) if self.state is None else rows
            rows = rows.filter(finished_at__gte=_moment(self.finished_since))
        if self.since is not None:
            rows = recorded_since(rows, _moment(self.since))
        if self.until is not None:
            end = _moment(self.until, end_of_day=True)
            first = _first_id_since(end, rows.db)
            rows = rows.filter(created_at__lt=end)
            rows = rows if first is None else rows.filter(pk__lt=first + _DISORDER)
        return rows

    def _equal(self) -> dict[str, Any]:
        equal: dict[str, Any] = self.given()
        for name in ("q", *_TIMES):
            equal.pop(name, None)
        if self.state == ANY_UNFINISHED:
            del equal["state"]
            equal["state__in"] = UNFINISHED  # named, so that the index on them answers
        if self.object_pk is not None:
            equal["object_pk"] = key_from_text(self.object_pk)
        return equal


def _in_words(name: str) -> str:
    words = {
        "since": _("recorded since"),
        "until": _("recorded until"),
        "finished_since": _("finished since"),
        "q": _("search"),
    }
    if name in words:
        return words[name]
    field: Any = Delivery._meta.get_field(name)
    return str(field.verbose_name)


def is_unheld() -> Q:
    """Return the condition that nobody has an unfinished delivery in hand."""
    return Q(state=State.WAITING) | Q(held_by="") | Q(available_at__lte=DatabaseNow())


def recorded_since(rows: DeliveryQuerySet, moment: datetime) -> DeliveryQuerySet:
    """Keep the rows recorded at or after a moment, without a look at those before it."""
    first = _first_id_since(moment, rows.db)
    rows = rows.filter(created_at__gte=moment)
    return rows if first is None else rows.filter(pk__gte=first - _DISORDER)


def _meant_by(text: str) -> Q:
    """Read what a person typed. Every branch is answered by an index."""
    model, colon, key = text.partition(":")
    if colon and model.count(".") == 1:
        label = model.strip().lower()
        return Q(model=label, object_pk__in=_keys_of(label, key.strip()))
    meant = Q(object_pk__in=_keys(text))
    with suppress(ValueError):
        meant |= Q(uid=UUID(text))
    if text.isascii() and text.isdigit() and len(text) < _LONGEST_ID:
        meant |= Q(pk=int(text))
    return meant


def _keys_of(label: str, text: str) -> list[Any]:
    """Return the keys of a model that somebody may mean, such as a UUID without its hyphens."""
    keys = _keys(text)
    # Of a model that is gone rows may still tell.
    with suppress(LookupError, TypeError, ValueError, ValidationError):
        pk: Any = apps.get_model(label)._meta.pk
        keys.append(plain_key(pk.to_python(text)))
    return keys


def _keys(text: str) -> list[Any]:
    """Return the keys that somebody may mean: the text itself, and what it is as JSON."""
    keys: list[Any] = [text]
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return keys
    if isinstance(read, int | str | list) and key_as_text(read) == text.replace(", ", ","):
        keys.append(read)
    return keys


def _moment(text: str, *, end_of_day: bool = False) -> datetime:
    """Read a day, as its beginning or its end, or a moment."""
    try:
        moment = datetime.combine(date.fromisoformat(text), time())
    except ValueError:
        moment, end_of_day = datetime.fromisoformat(text), False
    if not MINYEAR < moment.year < MAXYEAR:  # no other day or time zone leads out of the calendar
        raise ValueError(f"The year of {text!r} is out of range.")
    moment += timedelta(days=end_of_day)
    if timezone.is_aware(timezone.now()):
        return moment if timezone.is_aware(moment) else timezone.make_aware(moment)
    return (
        moment
        if timezone.is_naive(moment)
        else timezone.make_naive(moment, timezone.get_default_timezone())
    )


def _first_id_since(moment: datetime, using: str) -> int | None:
    """Return the first id recorded at or after a moment; ``None`` in an empty outbox.

    Bisects in one statement: no index on ``created_at`` has to be kept for it. May be wrong by
    what was recorded in the same moment.
    """
    connection, table = connections[using], quoted_table(using)
    statement = (
        "WITH RECURSIVE span(low, high) AS ("
        f" SELECT (SELECT MIN(id) FROM {table}), (SELECT MAX(id) + 1 FROM {table}) UNION ALL"
        " SELECT CASE WHEN middle.created_at < %s THEN middle.id + 1 ELSE low END,"
        " CASE WHEN middle.created_at < %s THEN high ELSE (low + high) >> 1 END"
        f" FROM span JOIN {table} middle ON middle.id ="
        f" (SELECT MIN(id) FROM {table} WHERE id >= (low + high) >> 1) WHERE low < high"
        ") SELECT low FROM span WHERE low >= high"
    )
    value = MomentField().get_db_prep_value(moment, connection)
    with connection.cursor() as cursor:
        cursor.execute(statement, [value, value])
        row = cursor.fetchone()
    return row[0] if row else None
