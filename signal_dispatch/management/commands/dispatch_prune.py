"""Delete finished deliveries that are old."""

import time
from argparse import ArgumentParser
from collections import Counter
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError

from signal_dispatch import pruning
from signal_dispatch.exceptions import InvalidSettings
from signal_dispatch.management.filters import (
    FilteringCommand,
    Filters,
    add_filters,
    counted,
    filters_of,
    summary,
)
from signal_dispatch.management.progress import Advance, progress
from signal_dispatch.management.stopping import until_told
from signal_dispatch.models import DeliveryQuerySet, State

_WHY_LEFT = "their lanes still need them."


class Command(FilteringCommand):
    """Delete what the retention has over, or what ``--older-than`` says, with its attempts.

    In small steps beside the traffic, each done whole or not at all. What a lane still needs is
    passed over. Told to stop, it ends after the step; started again it goes on.
    """

    help = "Delete finished deliveries that are older than the retention, or than you say."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        add_filters(parser, pruning.KEPT_AS, "by default all that are finished")
        parser.add_argument(
            "--older-than",
            type=float,
            metavar="DAYS",
            help="Finished so many days ago, whatever SIGNAL_DISPATCH_RETENTION says.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Prune what matches, database by database."""
        days = options["older_than"]
        if days is not None and not 0 <= days <= 36500:
            raise CommandError("--older-than takes a number of days, from 0 to 36500.")
        filters = filters_of(options)
        states = [State(options["state"])] if options["state"] else list(pruning.KEPT_AS)
        try:
            found = {
                (alias, state): rows
                for alias in filters.aliases
                for state in states
                if (rows := _expired(filters, alias, state, days)).exists()
            }
        except InvalidSettings as error:
            raise CommandError(f"{error} Correct it in your settings.") from error
        if not found:
            self.stdout.write(f"No deliveries {filters} are old enough: nothing to delete.")
        elif options["dry_run"]:
            for alias in dict.fromkeys(alias for alias, _state in found):
                self._foresee([rows for (a, _), rows in found.items() if a == alias], alias)
        else:
            self._prune(found, options["verbosity"])

    def _foresee(self, found: list[DeliveryQuerySet], alias: str) -> None:
        counts: Counter[tuple[str, ...]] = Counter()
        for rows in found:
            for free in pruning.foresee(rows, alias):
                counts += counted(rows.filter(pk__in=free))
        total, gone = sum(rows.count() for rows in found), counts.total()
        self.stdout.write(f"Database {alias!r}: {gone} of {total} deliveries would be deleted.")
        self.stdout.writelines(f"{line}\n" for line in summary(counts))
        if gone < total:
            self.stdout.write(f"{total - gone} would stay: {_WHY_LEFT}")

    def _prune(self, found: dict[tuple[str, State], DeliveryQuerySet], verbosity: int) -> None:
        total = sum(rows.count() for rows in found.values())
        deleted = 0
        with (
            until_told() as told,
            progress(self.stderr, "deleting", total, quiet=verbosity < 1) as advance,
        ):
            for (alias, _state), rows in found.items():
                deleted += _delete(rows, alias, told, advance)
        self.stdout.write(f"{deleted} deliveries are deleted.")
        if told:
            raise CommandError("Stopped before the end. Start it again to go on.", returncode=130)
        if deleted < total:
            self.stdout.write(f"{total - deleted} stay: {_WHY_LEFT}")


def _expired(filters: Filters, alias: str, state: State, days: float | None) -> DeliveryQuerySet:
    seconds = None if days is None else timedelta(days=days).total_seconds()
    return filters.narrow(pruning.expired(alias, state, seconds))


def _delete(rows: DeliveryQuerySet, alias: str, told: list[int], advance: Advance) -> int:
    deleted, place = 0, None
    while not told:
        began = time.monotonic()
        made = pruning.step(rows, alias, place)
        deleted, place = deleted + made.deleted, made.place
        advance(made.deleted, f"{place.finished_at:%Y-%m-%d %H:%M}" if place else "the end")
        if place is None:
            break
        time.sleep(time.monotonic() - began)  # half of the time is for others
    return deleted
