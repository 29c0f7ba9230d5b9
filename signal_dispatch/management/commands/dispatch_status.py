"""Show how the outboxes stand, and say by the exit code whether that is well."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from typing import Any

from django.conf import settings as django_settings
from django.core.management.base import BaseCommand, CommandError

from signal_dispatch.barred import Barred
from signal_dispatch.exceptions import InvalidSettings
from signal_dispatch.limits import Limits
from signal_dispatch.management.choices import refuse_unknown
from signal_dispatch.management.printing import printable, while_somebody_reads
from signal_dispatch.management.table import table
from signal_dispatch.reports import Report, report_on
from signal_dispatch.status import Status, counted

_DEFAULTS = Limits()


class Command(BaseCommand):
    """Print what is due, held, stranded and failed, and which workers live, for each database.

    Ends with 0 where all is within the limits, else with 1: for monitoring.
    """

    help = "Show how the outboxes stand; exit with 1 where that is not well."
    # Of a project that is not in order the outbox is still of interest.
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("--json", action="store_true", help="Print JSON, times in seconds.")
        parser.add_argument(
            "--database",
            action="append",
            metavar="ALIAS",
            help="Only the outbox of this database; may be given several times.",
        )
        parser.add_argument(
            "--max-age",
            type=float,
            default=_DEFAULTS.max_age,
            metavar="SECONDS",
            help="Unhealthy if a delivery has been due for longer (%(default)g).",
        )
        parser.add_argument(
            "--max-failed",
            type=int,
            default=_DEFAULTS.max_failed,
            metavar="N",
            help="Unhealthy if more became FAILED within the last hour (%(default)s).",
        )
        parser.add_argument(
            "--max-pause",
            type=float,
            default=_DEFAULTS.max_pause,
            metavar="SECONDS",
            help="Unhealthy if an endpoint that something waits for is paused for longer "
            "(%(default)g).",
        )
        parser.add_argument(
            "--need-worker",
            action="store_true",
            help="Unhealthy if no dispatch_worker is alive.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Print the status; raises ``SystemExit`` where something is beyond the limits."""
        limits = _limits(options)
        try:
            report = _look(options["database"], limits)
        except InvalidSettings as error:
            raise CommandError(f"{error} Correct it in your settings.") from error
        with while_somebody_reads(self.stdout):
            if options["json"]:
                self.stdout.write(json.dumps(report.as_json(), indent=2))
            else:
                self.stdout.writelines(f"{printable(line)}\n" for line in _text(report))
        if not report.healthy:
            raise SystemExit(1)


def _limits(options: Mapping[str, Any]) -> Limits:
    for name in ("max_age", "max_pause"):
        if not options[name] >= 0:  # so that NaN, which is not below it either, is refused
            option = f"--{name.replace('_', '-')}"
            raise CommandError(f"{option} must be a number of seconds, 0 or more.")
    if options["max_failed"] < 0:
        raise CommandError("--max-failed must not be negative: 0 tolerates none.")
    names = ("max_age", "max_failed", "need_worker", "max_pause")
    return Limits(**{name: options[name] for name in names})


def _look(named: list[str] | None, limits: Limits) -> Report:
    refuse_unknown("--database", named, django_settings.DATABASES)
    return report_on(limits, named)


def _text(report: Report) -> Iterator[str]:
    for status in report.found:
        named = f", environment {status.environment!r}" if status.environment else ""
        yield f"Database {status.database!r}{named}"
        for rows in _tables(status):
            if len(rows) > 1:
                yield ""
                yield from table(rows)
        yield from _advice(status)
        yield ""
    unwell = [(alias, text) for alias, sentences in report.problems.items() for text in sentences]
    yield "Unhealthy:" if unwell else "Healthy."
    for alias, sentence in unwell:
        yield f"  {alias}: {sentence}"


def _advice(status: Status) -> Iterator[str]:
    if status.stranded:
        yield ""
        yield "What to do:"
    for stranded in status.stranded:
        yield f"  {stranded.kind} {stranded.name!r}: {stranded.advice}"
    # Those of another environment are not for the admin of this one.
    if any(stranded.because != "environment" for stranded in status.stranded):
        yield _CURE


def _barred(barred: Barred) -> tuple[str, ...]:
    why, told = f"paused by {barred.paused_by}", barred.reason
    if barred.seconds_left is not None:
        why, told = "breaker open", f"next try in {barred.seconds_left:.0f} s"
    since = f"{barred.since_seconds_ago:.0f} s"
    return barred.endpoint, why, since, str(barred.deliveries), told


def _tables(status: Status) -> Iterator[list[tuple[str, ...]]]:
    yield [
        ("STATE", "DELIVERIES"),
        *((state, counted(number)) for state, number in status.states.items()),
        ("failed within an hour", counted(status.failed_lately)),
    ]
    yield [
        ("ENDPOINT", "DUE", "SINCE", "SCHEDULED", "HELD", "WAITING", "LANES"),
        *(
            (
                backlog.endpoint,
                str(backlog.due),
                f"{backlog.oldest_due_seconds:.0f} s" if backlog.due else "-",
                str(backlog.scheduled),
                str(backlog.held),
                str(backlog.waiting),
                str(backlog.waiting_lanes),
            )
            for backlog in status.backlogs
        ),
    ]
    yield [
        ("NOT CALLED", "WHY", "SINCE", "DELIVERIES", ""),
        *(_barred(each) for each in status.barred),
    ]
    yield [
        ("HELD BY", "DELIVERIES", "LEASE ENDS IN"),
        *((h.name, str(h.deliveries), f"{h.seconds_left:.0f} s") for h in status.holders),
    ]
    yield [
        ("WAITS FOR ITS ENDPOINT", "DELIVERIES", "BECAUSE"),
        *((u.endpoint, str(u.deliveries), u.reason) for u in status.unresolved),
    ]
    yield [
        ("NOBODY HERE MAY TAKE", "", "DELIVERIES"),
        *((s.kind, repr(s.name), str(s.deliveries)) for s in status.stranded),
    ]
    yield [
        ("WORKER", "", "SEEN", "STARTED", "CONCURRENCY", "ENDPOINTS"),
        *(
            (
                worker.name,
                "alive" if worker.alive else "dead",
                f"{worker.seen_seconds_ago:.0f} s ago",
                f"{worker.started_seconds_ago:.0f} s ago",
                str(worker.concurrency),
                ", ".join(worker.endpoints) or "-",
            )
            for worker in status.workers
        ),
    ]


_CURE = (
    "  What will not come back: cancel them, or give them to another dispatch or endpoint, in the "
    "admin's list of deliveries."
)
