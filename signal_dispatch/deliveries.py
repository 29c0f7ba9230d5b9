"""What a test sees of the outbox, and how it sends what is there."""

from collections.abc import Collection, Iterator, Sequence
from typing import overload
from uuid import UUID

from django.db import connections
from django.test import testcases

from signal_dispatch import claims, lanes, scopes
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.databases import is_in_test_case, outbox_aliases
from signal_dispatch.endpoints import endpoints
from signal_dispatch.inline import send_inline
from signal_dispatch.models import Delivery, DeliveryQuerySet, State
from signal_dispatch.settling import Settlement

#: How many forgotten lanes are released at once.
_LANES = 1000


class Deliveries(Sequence[Delivery]):
    """The deliveries in the outbox, in every state, read anew each time they are looked at.

    Of all databases that the test may use, one after the other, by id.
    """

    def __init__(self, uids: Collection[UUID] | None = None) -> None:
        self._uids = uids

    def __iter__(self) -> Iterator[Delivery]:
        # Two aliases may mean one database: the mirrors of a test run.
        found = {d.uid: d for using in _allowed_aliases() for d in self._rows(using).order_by("id")}
        return iter(found.values())

    def __len__(self) -> int:
        return len(list(iter(self)))

    @overload
    def __getitem__(self, index: int) -> Delivery: ...
    @overload
    def __getitem__(self, index: slice) -> list[Delivery]: ...
    def __getitem__(self, index: int | slice) -> Delivery | list[Delivery]:
        return list(iter(self))[index]

    def __repr__(self) -> str:
        return f"<Deliveries {[f'{delivery} ({delivery.state})' for delivery in self]}>"

    def send(self, *, until_done: bool = False) -> list[Delivery]:
        """Send what is due, on the test's own connections, and return what was tried.

        Goes on until nothing is due, with one attempt each; ``until_done`` asks for no time and
        makes all attempts, but of what could not be tried none. Raises what hooks raise, and
        ``EndpointNotMocked``; a failing call is no error.
        """
        tried: dict[UUID, Delivery] = {}
        left: set[UUID] = set()
        endpoints.forget()  # what RESOLVERs answered before the test changed what they look up
        usings = _allowed_aliases()
        while True:
            skip = left if until_done else tried.keys()
            sent = [
                s for using in usings for s in self._send_once(using, skip, timely=not until_done)
            ]
            if not sent:
                return list(tried.values())
            tried |= {s.delivery.uid: s.delivery for s in sent}
            # Another try would use up no attempt either, and so on for ever.
            left |= {
                s.delivery.uid for s in sent if not (s.finished or s.attempt or s.handler_tried)
            }

    def _send_once(self, using: str, skip: Collection[UUID], *, timely: bool) -> list[Settlement]:
        """Make one attempt of what is not in ``skip``, and of that, if ``timely``, what is due."""
        # Whoever should have released them may be gone: a head that the test itself deleted.
        scope = scopes.own_scope(endpoints)
        lanes.release(using, lanes.idle_lanes(scope.rows(using), _LANES), None)
        rows = self._limited(scope.rows(using)).filter(state=State.PENDING)
        if timely:
            rows = rows.filter(available_at__lte=DatabaseNow())
        rows = rows.exclude(uid__in=list(skip))
        lease = claims.own_lease()
        taken = claims.claim_ids(using, lease, rows.values_list("pk", flat=True))
        return send_inline(taken, using, lease, raising=True)

    def _rows(self, using: str) -> DeliveryQuerySet:
        return self._limited(Delivery.objects.using(using).all())

    def _limited(self, rows: DeliveryQuerySet) -> DeliveryQuerySet:
        return rows if self._uids is None else rows.filter(uid__in=list(self._uids))


def uncommitted_aliases() -> list[str]:
    """List the databases on which a test case's own transaction is open."""
    return [using for using in connections if is_in_test_case(using)]


def is_anything_due(usings: Collection[str]) -> bool:
    """Say whether one of these outboxes has something that ``send()`` would send now."""
    scope = scopes.own_scope(endpoints)
    due = {"state": State.PENDING, "available_at__lte": DatabaseNow()}
    return any(
        # One in which a statement failed takes no other.
        not connections[using].needs_rollback and scope.rows(using).filter(**due).exists()
        for using in _allowed_aliases()
        if using in usings
    )


def _allowed_aliases() -> list[str]:
    """List the outbox's databases that the running test may use; raises where it may use none."""
    allowed, refused = [], None
    for using in outbox_aliases(Delivery):
        try:
            connections[using].cursor().close()
        except testcases.DatabaseOperationForbidden as error:  # type: ignore[attr-defined]
            refused = error
        else:
            allowed.append(using)
    if refused and not allowed:
        raise refused
    return allowed
