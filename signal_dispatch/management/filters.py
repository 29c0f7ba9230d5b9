"""The options by which commands are told which deliveries are meant."""

import re
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.apps import apps
from django.core.management.base import BaseCommand, CommandError
from django.db.models import Count

from signal_dispatch.conf import settings
from signal_dispatch.endpoints import endpoints
from signal_dispatch.events import Event
from signal_dispatch.management.choices import models_with_a_dispatch, unknown
from signal_dispatch.management.outboxes import outboxes
from signal_dispatch.management.printing import printable
from signal_dispatch.management.table import table
from signal_dispatch.models import Delivery, DeliveryQuerySet
from signal_dispatch.outcomes import ERROR_CLASSES
from signal_dispatch.registry import registry
from signal_dispatch.selecting import Selection

#: What is said of a value that is not known, at most.
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Filters:
    """Which deliveries of which databases are meant, of this environment alone.

    ``given`` is what was asked for, by the options' names.
    """

    aliases: Sequence[str]
    selections: Sequence[Selection]
    given: Mapping[str, str]

    def rows(self, using: str) -> DeliveryQuerySet:
        """Return those of one database."""
        return self.narrow(Delivery.objects.using(using).filter(environment=settings.environment))

    def narrow(self, rows: DeliveryQuerySet) -> DeliveryQuerySet:
        """Keep those of the rows that are meant."""
        for selection in self.selections:
            rows = selection.narrow(rows)
        return rows

    def __str__(self) -> str:
        words = [f"{name} {value}" for name, value in self.given.items()]
        return f"of {', '.join(words)}" if words else "at all"


class FilteringCommand(BaseCommand):
    """A command with these options; a wrong name is an error that names the right ones."""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """Return the parser; it says what there is, where something else is asked for."""
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        refuse = parser.error

        def error(message: str) -> Any:
            if message.startswith("unrecognized arguments"):
                names = re.findall(r"--[a-z-]+", parser.format_usage())
                message = f"{message}. Known are: {', '.join(sorted(names))}."
            return refuse(message)

        parser.error = error  # type: ignore[method-assign]
        return parser


def add_filters(parser: ArgumentParser, states: Iterable[str], default: str) -> None:
    """Declare the options; ``states`` are those that the command has to do with."""
    parser.add_argument("--endpoint", metavar="ALIAS", help="Only those to this endpoint.")
    parser.add_argument("--dispatch", metavar="NAME", help="Only those of this dispatch.")
    parser.add_argument("--event", metavar="EVENT", help="Only those that tell of this event.")
    parser.add_argument(
        "--state", choices=[str(state) for state in states], help=f"Only these; {default}."
    )
    parser.add_argument(
        "--error-class", metavar="CLASS", help='Only those that failed so, as "timeout".'
    )
    parser.add_argument(
        "--since",
        metavar="WHEN",
        help='Recorded on this day or later, or since "2026-01-31T10:30".',
    )
    parser.add_argument(
        "--until", metavar="WHEN", help="Recorded on this day or before, or before this moment."
    )
    parser.add_argument(
        "--finished-since",
        metavar="WHEN",
        help="Finished since then, as --since takes it: of failed ones, given up since then.",
    )
    parser.add_argument(
        "--object", metavar="APP.MODEL:PK", help='Only those of this object, as "shop.order:7".'
    )
    parser.add_argument("--uid", metavar="UID", help="Only the one with this Idempotency-Key.")
    parser.add_argument(
        "--database",
        action="append",
        metavar="ALIAS",
        help="Only the outbox of this database; may be given several times.",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="Say what would be done, and do nothing."
    )


def filters_of(options: Mapping[str, Any]) -> Filters:
    """Read the options. Raises ``CommandError`` with what is known, for a value that is not."""
    aliases = outboxes(options["database"])
    times = ("since", "until", "finished_since")
    names = ("state", "endpoint", "dispatch", "event", "error_class", *times)
    given = {name: options[name] for name in names if options[name] is not None}
    try:
        selections = [Selection.of(given)]
    except ValueError as error:
        raise CommandError(
            "--since, --until and --finished-since take a day or a moment, as "
            f'"2026-01-31T10:30": {str(error).rstrip(".")}.'
        ) from error
    typed = {"object": _object(options["object"], aliases), "uid": _uid(options["uid"])}
    searched = {name: text for name, text in typed.items() if text is not None}
    selections += [Selection(q=text) for text in searched.values()]
    for name, known in (
        ("endpoint", list(endpoints)),
        ("dispatch", [dispatch.name for dispatch in registry]),
        ("event", sorted({*Event.values, *(str(e) for d in registry for e in d.events)})),
        ("error_class", ERROR_CLASSES),
    ):
        _refuse_unknown(name, options[name], known, aliases)
    named = {name.replace("_", "-"): value for name, value in (given | searched).items()}
    return Filters(aliases, selections, named)


def counted(rows: DeliveryQuerySet) -> Counter[tuple[str, ...]]:
    """Count the rows by endpoint, dispatch and state."""
    groups: Any = rows.order_by().values_list("endpoint", "dispatch", "state")
    return Counter({tuple(names): count for *names, count in groups.annotate(count=Count("id"))})


def summary(counts: Mapping[tuple[str, ...], int]) -> list[str]:
    """Return a table of what was counted; nothing where that is nothing."""
    head = ("ENDPOINT", "DISPATCH", "STATE", "DELIVERIES")
    rows = [(*names, str(count)) for names, count in sorted(counts.items())]
    return list(table([head, *rows])) if rows else []


def _object(text: str | None, aliases: Sequence[str]) -> str | None:
    if text is None:
        return None
    label, _, key = text.partition(":")
    # A model that was renamed since still stands in its rows.
    if key and (_is_model(label) or _stands("model", label.lower(), aliases)):
        return text
    raise CommandError(
        f"--object {text!r} names no object: write the model's label and the key, as "
        f'"shop.order:7". {models_with_a_dispatch()}'
    )


def _is_model(label: str) -> bool:
    try:
        apps.get_model(label)
    except (LookupError, ValueError):
        return False
    return True


def _uid(text: str | None) -> str | None:
    try:
        return None if text is None else str(UUID(text))
    except ValueError as error:
        raise CommandError(
            f"--uid {text!r} is no UUID. Write the Idempotency-Key that the delivery was sent with."
        ) from error


def _refuse_unknown(
    name: str, value: str | None, known: Sequence[str], aliases: Sequence[str]
) -> None:
    """Refuse a value that neither the site nor any row knows."""
    # What is gone from the code, or from the settings, may still stand in rows.
    if value is None or value in known or _stands(name, value, aliases):
        return
    if name == "endpoint" and endpoints.find(value) is not None:
        return
    found = [*known, *_standing(name, aliases)]
    option = f"--{name.replace('_', '-')}"
    raise unknown(option, value, map(printable, sorted(set(filter(None, found)))[:_SHOWN]))


def _stands(column: str, value: str, aliases: Sequence[str]) -> bool:
    return any(
        Delivery.objects.using(alias).filter(**{column: value}).exists() for alias in aliases
    )


def _standing(column: str, aliases: Sequence[str]) -> set[str]:
    return {
        value
        for alias in aliases
        for value in Delivery.objects.using(alias)
        .order_by()
        .values_list(column, flat=True)
        .distinct()[:_SHOWN]
    }
