"""One delivery on a page: its way so far, why it waits, what was sent and answered."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db import Error, transaction
from django.http import HttpRequest

from signal_dispatch import bodies, masking, showing
from signal_dispatch.admin import cells, outboxes
from signal_dispatch.clocks import SecondsFromNow
from signal_dispatch.credentials import Asked
from signal_dispatch.endpoints import endpoints
from signal_dispatch.explaining import Wait, short_holder, why_it_waits
from signal_dispatch.keys import key_as_text
from signal_dispatch.models import UNFINISHED, Attempt, Delivery
from signal_dispatch.outcomes import OutcomeKind
from signal_dispatch.registry import registry

#: How many attempts, and how many other deliveries of the object, are shown.
SHOWN_ATTEMPTS, SHOWN_OTHERS, SHOWN_DEEDS = 25, 5, 20
_GOOD = (OutcomeKind.DELIVERED,)


@dataclass(frozen=True, slots=True)
class AttemptShown:
    """One attempt as the page shows it."""

    row: Any
    is_last: bool

    @property
    def good(self) -> bool:
        """Whether the remote took it."""
        return self.row.outcome in _GOOD

    @property
    def result(self) -> str:
        """The status, or what went wrong where none came."""
        return str(self.row.status_code or self.row.error_class or self.row.outcome)

    @property
    def when(self) -> Any:
        """When it began."""
        return showing.relative(min(self.row.began_in, 0.0), self.row.started_at)

    @property
    def sender(self) -> str:
        """Host and pid of the process that made it."""
        return short_holder(self.row.sender)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers of the answer."""
        return bodies.masked(self.row.response_headers)

    @property
    def body(self) -> str:
        """The body of the answer, as text."""
        return bodies.readable(bytes(self.row.response_body))


class DeliveryPage:
    """What the page of one delivery shows; each question is asked when the template comes to it."""

    def __init__(self, delivery: Any, site: AdminSite, request: HttpRequest) -> None:
        self.delivery = delivery
        self._request = request
        self.using = delivery._state.db
        self._site = site

    # What it is

    @property
    def pill(self) -> str:
        """Its state."""
        return showing.pill(self.delivery.state)

    @property
    def finished(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.delivery.state not in UNFINISHED

    @property
    def recorded(self) -> Any:
        """When it was recorded."""
        return showing.relative(min(self.delivery.age_in, 0.0), self.delivery.created_at)

    @property
    def finished_at(self) -> str:
        """When it was finished."""
        return showing.exact(self.delivery.finished_at) if self.delivery.finished_at else ""

    @property
    def attempts_made(self) -> str:
        """How many attempts, of how many."""
        return cells.attempts(self.delivery)

    @property
    def dispatch_known(self) -> bool:
        """Whether the code here declares its dispatch for its model."""
        return registry.find(self.delivery.dispatch, self.delivery.model) is not None

    @property
    def model_known(self) -> bool:
        """Whether the site still has its model."""
        return cells.model_of(self.delivery.model) is not None

    @cached_property
    def host(self) -> str | None:
        """The endpoint's host; None where settings don't know it."""
        endpoint = endpoints.find(self.delivery.endpoint)
        return endpoint.host if endpoint else None

    @property
    def object_link(self) -> Any:
        """Its object."""
        return cells.object_link(self.delivery, self._site, self._request)

    @cached_property
    def object_gone(self) -> bool:
        """Whether its object stands in the database no more."""
        model = cells.model_of(self.delivery.model)
        if model is None:
            return False
        try:
            with transaction.atomic(using=self.using):
                rows = model._base_manager.using(self.using)
                return not rows.filter(pk=self.delivery.object_pk).exists()
        except (ValueError, TypeError, ValidationError, Error):  # another kind of key by now
            return True

    @property
    def has_object(self) -> bool:
        """Whether its object can be read."""
        return self.model_known and not self.object_gone

    @property
    def query(self) -> str:
        """What an address needs to name this outbox."""
        return outboxes.query_for(self.using)

    @property
    def endpoint_query(self) -> str:
        """What the address of its endpoint's page needs."""
        return outboxes.query_for(self.using, endpoint=self.delivery.endpoint)

    @property
    def history_query(self) -> str:
        """What the list's address needs to show this object's deliveries."""
        key = key_as_text(self.delivery.object_pk)
        return outboxes.query_for(self.using, model=self.delivery.model, object_pk=key)

    # Its way

    @cached_property
    def wait(self) -> Wait | None:
        """Why it waits."""
        return why_it_waits(self.delivery, self.using)

    @cached_property
    def attempts(self) -> list[AttemptShown]:
        """The last attempts, in their order."""
        rows: Any = Attempt.objects.using(self.using).filter(delivery_id=self.delivery.pk)
        rows = rows.annotate(began_in=SecondsFromNow("started_at"))
        found = list(rows.order_by("-number", "-pk")[:SHOWN_ATTEMPTS])
        return [AttemptShown(row, is_last=row is found[0]) for row in reversed(found)]

    @property
    def attempts_left_out(self) -> int:
        """How many earlier attempts are not shown."""
        return max(0, self.attempts[0].row.number - 1) if self.attempts else 0

    @cached_property
    def others(self) -> list[Delivery]:
        """The newest other deliveries of its object."""
        rows = Delivery.objects.using(self.using).defer("body", "headers")
        rows = rows.filter(model=self.delivery.model, object_pk=self.delivery.object_pk)
        return list(rows.exclude(pk=self.delivery.pk).order_by("-pk")[:SHOWN_OTHERS])

    @cached_property
    def deeds(self) -> list[LogEntry]:
        """What people did to it."""
        kind = ContentType.objects.get_for_model(Delivery)
        rows = LogEntry.objects.filter(content_type=kind, object_id=str(self.delivery.pk))
        rows = outboxes.entries_of(self.using, rows.select_related("user"))
        return list(rows.order_by("-action_time")[:SHOWN_DEEDS])

    # What is sent

    @property
    def request_line(self) -> str:
        """Method and path; of the endpoint's own URL only the host may be shown."""
        delivery = self.delivery
        return f"{delivery.method} {self.host or '?'} … /{delivery.path.lstrip('/')}"

    @property
    def is_drafted(self) -> bool:
        """Whether it is settled what is sent."""
        return bool(self.delivery.method)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The headers, what the endpoint adds without its values."""
        endpoint = endpoints.find(self.delivery.endpoint)
        added = endpoint.headers if endpoint else {}
        added = added.parts if isinstance(added, Asked) else added
        shown = dict.fromkeys(added, "") | self.delivery.headers
        if self.delivery.method not in ("GET", "HEAD"):
            shown["Idempotency-Key"] = str(self.delivery.uid)
        secret = [name for name in added if name not in self.delivery.headers]
        return bodies.masked(shown, secret)

    @property
    def payload(self) -> str:
        """The body, as text, without what its dispatch calls sensitive."""
        masked = masking.masked_body(self.delivery)
        return bodies.readable(bytes(self.delivery.body) if masked is None else masked)
