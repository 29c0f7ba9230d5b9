"""Show which changes are told to whom, and the request that one object would make."""

import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import connections, router
from django.db.models import CompositePrimaryKey, Model

from signal_dispatch.exceptions import InvalidSettings
from signal_dispatch.management.choices import models_with_a_dispatch, refuse_unknown
from signal_dispatch.management.preview import preview
from signal_dispatch.management.printing import printable, while_somebody_reads
from signal_dispatch.management.table import table
from signal_dispatch.mappings import calls_of, destination_of
from signal_dispatch.registry import registry

_HEAD = ("MODEL", "DISPATCH", "EVENTS", "ENDPOINT", "HOST", "METHOD", "PATH")


class Command(BaseCommand):
    """List the dispatches, or show what a save of one object would send.

    Nothing is sent, and whatever the hooks write is rolled back. Secrets are masked.
    """

    help = "List the dispatches, or show the request that a save of one object would make."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--object",
            metavar="APP.MODEL:PK",
            help='Show the request that a save of this object would make, as "shop.order:7".',
        )
        parser.add_argument(
            "--database",
            metavar="ALIAS",
            help="Read the object from this database; by default from where it is written to.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the table, or the requests of one object."""
        try:
            texts = list(self._lines(options["object"], options["database"]))
        except InvalidSettings as error:
            raise CommandError(f"{error} Correct it in your settings.") from error
        with while_somebody_reads(self.stdout):
            for text in texts:
                for line in text.split("\n"):  # a body has several
                    self.stdout.write(printable(line))

    def _lines(self, named: str | None, alias: str | None) -> Iterable[str]:
        if not len(registry):
            return ["No dispatch is registered: nothing is told to anybody."]
        if named is not None:
            return preview(*_find(named, alias))
        return table([_HEAD, *_rows()])


def _rows() -> Iterator[tuple[str, ...]]:
    """Yield a line for each dispatch; several where events differ in method or path."""
    for dispatch in sorted(registry, key=lambda d: (d.model._meta.label, d.name)):
        alias, host = destination_of(dispatch)
        label = dispatch.model._meta.label
        for call in calls_of(dispatch):
            events = ", ".join(call.events)
            yield label, dispatch.name, events, alias, host, call.method, call.path


def _find(text: str, alias: str | None) -> tuple[Model, str]:
    label, _, key = text.partition(":")
    try:
        model = apps.get_model(label)
    except (LookupError, ValueError) as error:
        raise CommandError(
            f"--object {text!r} names no model. Write the model's label and the key: "
            f"shop.order:7. {models_with_a_dispatch()}"
        ) from error
    using = alias or router.db_for_write(model)
    refuse_unknown("--database", [using], list(connections))
    pk: Any = model._meta.pk
    try:
        value = json.loads(key) if isinstance(pk, CompositePrimaryKey) else pk.to_python(key)
        return model._base_manager.using(using).get(pk=value), using
    except (ValidationError, TypeError, ValueError) as error:
        form = 'a JSON list, as ["A", 4]' if isinstance(pk, CompositePrimaryKey) else pk.description
        raise CommandError(
            f"{key!r} is no key of {model._meta.label}. Write one after the colon: {form}."
        ) from error
    except model.DoesNotExist as error:
        raise CommandError(
            f"The database {using!r} has no {model._meta.label} with the key {key}. "
            "Use --database to look into another one."
        ) from error
