"""Let deliveries go out again: those that failed, unless others are asked for."""

from argparse import ArgumentParser
from collections import Counter
from typing import Any

from django.core.management.base import CommandError

from signal_dispatch.management.batches import batches
from signal_dispatch.management.filters import (
    FilteringCommand,
    add_filters,
    counted,
    filters_of,
    summary,
)
from signal_dispatch.management.progress import progress
from signal_dispatch.management.stopping import until_told
from signal_dispatch.models import DeliveryQuerySet, State
from signal_dispatch.repairing import foresee, retry

_WHY_LEFT = (
    "due already, perhaps where nobody here takes it (dispatch_status says), in somebody's hands, "
    "replaced by another, or a later one told the newer state."
)
_STATES = (State.FAILED, State.CANCELLED, State.PENDING)


class Command(FilteringCommand):
    """Make deliveries due now that are FAILED; or CANCELLED, or scheduled for later.

    In batches, each done whole or not at all. Told to stop, it ends after the batch; started
    again it goes on, for what is due by then is no longer FAILED.
    """

    help = (
        "Let deliveries go out again that failed, or others that the filters name. Method, path, "
        "headers and body stay as they were recorded; URL, credentials and the hooks for the "
        "answer are those of now. What a corrected class says is sent by dispatch_resync, or by "
        "'Rebuild' in the admin."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        add_filters(parser, _STATES, "by default what is failed; pending ones are scheduled ones")

    def handle(self, *args: Any, **options: Any) -> None:
        """Retry what matches, database by database."""
        filters = filters_of({**options, "state": options["state"] or State.FAILED.value})
        found = {alias: filters.rows(alias).count() for alias in filters.aliases}
        if not any(found.values()):
            self.stdout.write(f"No deliveries {filters} are there: nothing to retry.")
            return
        for alias in (alias for alias, count in found.items() if count):
            rows = filters.rows(alias)
            if options["dry_run"]:
                self._foresee(rows, alias, found[alias])
            else:
                self._retry(rows, alias, found[alias], options["verbosity"])

    def _foresee(self, rows: DeliveryQuerySet, alias: str, count: int) -> None:
        counts: Counter[tuple[str, ...]] = Counter()
        for some in batches(rows, ()):
            foreseen = foresee(rows.filter(pk__in=some))
            counts += counted(rows.filter(pk__in=foreseen))
        done = counts.total()
        self.stdout.write(f"Database {alias!r}: {done} of {count} deliveries would go out again.")
        self.stdout.writelines(f"{line}\n" for line in summary(counts))
        if count > done:
            self.stdout.write(f"{count - done} would be left: {_WHY_LEFT}")

    def _retry(self, rows: DeliveryQuerySet, alias: str, count: int, verbosity: int) -> None:
        done = seen = 0
        with (
            until_told() as told,
            progress(self.stderr, "retrying", count, quiet=verbosity < 1) as advance,
        ):
            for some in batches(rows, told):
                done += retry(rows.filter(pk__in=some))
                seen += len(some)
                advance(len(some), some[-1])
        self.stdout.write(f"Database {alias!r}: {done} of {seen} deliveries go out again.")
        if seen > done:
            self.stdout.write(f"{seen - done} were left: {_WHY_LEFT}")
        if told:
            raise CommandError("Stopped before the end. Start it again to go on.", returncode=130)
