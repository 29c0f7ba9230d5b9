"""Tell an endpoint of all objects of a model, or of those that it never heard of."""

from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.apps import apps
from django.core.exceptions import FieldError, ValidationError
from django.core.management.base import CommandError
from django.db import Error, router
from django.db.models import CompositePrimaryKey, Model, QuerySet

from signal_dispatch.backends import backends
from signal_dispatch.conf import settings
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.enqueueing import enqueue, foresee
from signal_dispatch.events import Event
from signal_dispatch.exceptions import InvalidBackend
from signal_dispatch.keys import key_as_text, key_from_text, plain_key
from signal_dispatch.management.batches import batches
from signal_dispatch.management.choices import models_with_a_dispatch, refuse_unknown, unknown
from signal_dispatch.management.filters import FilteringCommand
from signal_dispatch.management.outboxes import outboxes
from signal_dispatch.management.printing import printable
from signal_dispatch.management.progress import progress
from signal_dispatch.management.stopping import until_told
from signal_dispatch.models import Delivery, RemoteObject
from signal_dispatch.registry import registry


class Command(FilteringCommand):
    """Record a delivery for each object: ``enqueue()`` in batches, with their progress.

    Each batch is one transaction. Told to stop, it ends after the batch and says how to go on;
    with ``--missing`` a second start does so by itself.
    """

    help = "Tell of all objects of a model, or of those that nobody was ever told of."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("model", metavar="APP.MODEL", help='Such as "shop.Order".')
        parser.add_argument(
            "--dispatch",
            metavar="NAME",
            help="Only by this dispatch, whatever its 'on' says; by default by all with the event.",
        )
        parser.add_argument(
            "--event",
            metavar="EVENT",
            help='What to tell: "updated", or with --missing "created", unless you say.',
        )
        parser.add_argument(
            "--missing",
            action="store_true",
            help="Only objects with no delivery in the outbox and no id of the remote's: the first "
            "adoption. What the retention has deleted is no longer there.",
        )
        parser.add_argument(
            "--filter",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help='Only these objects, as "status=paid" or "status__in=paid,sent"; several may be '
            "given.",
        )
        parser.add_argument(
            "--all",
            action="store_true",
            help="Those too that the model's default manager hides.",
        )
        parser.add_argument("--after", metavar="PK", help="Go on behind the object with this key.")
        parser.add_argument("--database", metavar="ALIAS", help="Where the objects are.")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="Ask the hooks, say how many deliveries would be recorded, and record none.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Record what is asked for; raises ``CommandError`` where that makes no sense."""
        model = _model(options["model"])
        event = options["event"] or (Event.CREATED if options["missing"] else Event.UPDATED).value
        dispatches = _dispatches(model, event, options["dispatch"])
        rows = _rows(model, options)
        after = None if options["after"] is None else _key(model, options["after"])
        self._go_through(rows, dispatches, event, after, options)

    def _go_through(
        self,
        rows: QuerySet[Any],
        dispatches: Sequence[ModelDispatch[Any]],
        event: str,
        after: Any,
        options: dict[str, Any],
    ) -> None:
        total = (rows if after is None else rows.filter(pk__gt=after)).count()
        objects = recorded = 0
        last = after
        label = rows.model._meta.label
        with (
            until_told() as told,
            progress(
                self.stderr, f"telling of {label}", total, quiet=options["verbosity"] < 1
            ) as advance,
        ):
            for some in batches(rows, told, after):
                objects += len(some)
                recorded += _tell(rows, some, dispatches, event, options)
                last = some[-1]
                advance(len(some), _text(last))
        recording = "would be recorded" if options["dry_run"] else "are recorded"
        self.stdout.write(f"{objects} objects of {label}: {recorded} deliveries {recording}.")
        if recorded and not options["dry_run"]:
            self.stdout.writelines(f"{line}\n" for line in _senders(dispatches))
        if told:
            raise CommandError(
                f"Stopped before the end. Go on with --after {_text(last)}.", returncode=130
            )


def _senders(dispatches: Sequence[ModelDispatch[Any]]) -> list[str]:
    """Say who sends what this process does not send before it ends."""
    aliases = {backends.alias_for(str(dispatch.endpoint)) for dispatch in dispatches}
    with suppress(InvalidBackend):  # which the checks tell
        left_to = sorted({backends[alias].left_to for alias in aliases} - {""})
        return [f"They are sent by {who}." for who in left_to]
    return []


def _tell(
    rows: QuerySet[Any],
    keys: Sequence[Any],
    dispatches: Sequence[ModelDispatch[Any]],
    event: str,
    options: dict[str, Any],
) -> int:
    """Record one batch, and return how many deliveries that makes, or would make."""
    tell = foresee if options["dry_run"] else enqueue
    recorded = 0
    for dispatch in dispatches:
        mine = _untold(keys, dispatch, rows.db) if options["missing"] else keys
        if mine:
            objects = rows.model._base_manager.using(rows.db).filter(pk__in=mine)
            recorded += tell(objects, event, dispatch.name)
    return recorded


def _untold(keys: Sequence[Any], dispatch: ModelDispatch[Any], using: str) -> Sequence[Any]:
    """Leave out the objects that the dispatch told of, or is about to."""
    plain = [plain_key(key) for key in keys]
    mine = {
        "environment": settings.environment,
        "dispatch": dispatch.name,
        "model": dispatch.model._meta.label_lower,
        "object_pk__in": plain,
    }
    told: set[Any] = set()
    for rows in (Delivery.objects, RemoteObject.objects):
        told |= set(rows.using(using).filter(**mine).values_list("object_pk", flat=True))
    return [key for key, known in zip(keys, plain, strict=True) if known not in told]


def _model(label: str) -> type[Model]:
    try:
        return apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise CommandError(f"{label!r} names no model. {models_with_a_dispatch()}") from error


def _dispatches(model: type[Model], event: str, name: str | None) -> Sequence[ModelDispatch[Any]]:
    registered = [dispatch for dispatch in registry if issubclass(model, dispatch.model)]
    if not registered:
        raise CommandError(
            f"No dispatch is registered for {model._meta.label}. {models_with_a_dispatch()}"
        )
    if name is not None:
        named = [dispatch for dispatch in registered if dispatch.name == name]
        if not named:
            raise unknown("--dispatch", name, [dispatch.name for dispatch in registered])
        events = {*Event.values, *(str(e) for dispatch in named for e in dispatch.events)}
        refuse_unknown("--event", [event], sorted(events))
        return named
    found = [dispatch for dispatch in registered if event in dispatch.events]
    if not found:
        known = ", ".join(sorted({str(e) for dispatch in registered for e in dispatch.events}))
        raise CommandError(
            f"No dispatch of {model._meta.label} tells of {event!r}, only of: {known}. "
            "Name one of these with --event, or a dispatch with --dispatch."
        )
    return found


def _rows(model: type[Model], options: dict[str, Any]) -> QuerySet[Any]:
    [using] = outboxes([options["database"] or router.db_for_write(model)])
    manager = model._base_manager if options["all"] else model._default_manager
    given = dict(_condition(text) for text in options["filter"])
    try:
        # Of one that a filter finds over several related rows there is one delivery.
        rows = manager.using(using).filter(**given)
        if given:
            rows.exists()  # what only the database can judge, such as a regular expression
        return rows.distinct() if given else rows
    except (FieldError, ValueError, ValidationError, Error) as error:
        text = " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
        raise CommandError(f"--filter: {text}") from error


def _condition(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise CommandError(f'--filter takes NAME=VALUE, as "status=paid", not {text!r}.')
    if name.endswith("__in"):
        return name, value.split(",")
    if name.endswith("__isnull"):
        return name, value.lower() in ("true", "1", "yes")
    return name, value


def _key(model: type[Model], text: str) -> Any:
    pk: Any = model._meta.pk
    try:
        return key_from_text(text) if isinstance(pk, CompositePrimaryKey) else pk.to_python(text)
    except (ValidationError, ValueError) as error:
        raise CommandError(
            f"--after {text!r} is no key of {model._meta.label}: write the one that was told when "
            "it stopped."
        ) from error


def _text(key: Any) -> str:
    return printable(key_as_text(key) if isinstance(key, tuple) else str(key))
