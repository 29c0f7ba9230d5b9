"""Send deliveries from a process of its own, until told to stop."""

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from itertools import repeat
from math import inf
from typing import Any

from django.conf import settings as django_settings
from django.core.management.base import BaseCommand, CommandError

from signal_dispatch.backends import backends
from signal_dispatch.endpoints import endpoints
from signal_dispatch.heartbeats import Heartbeat
from signal_dispatch.management.choices import refuse_unknown
from signal_dispatch.management.stopping import until_told
from signal_dispatch.scopes import Scope, own_scope
from signal_dispatch.tallies import Tally
from signal_dispatch.worker import Worker

#: Seconds after which a signal is noticed at the latest.
POLL_SECONDS = 0.1
#: Seconds that calls in flight get after the first signal.
DRAIN_SECONDS = 20.0
#: Seconds that ``--once`` waits at most for a rate to have room again.
RATE_PATIENCE_SECONDS = 5.0
#: Seconds that ``--once`` waits at most for a database to be there again.
REACH_SECONDS = 10.0

_NO_ENDPOINT = (
    "no endpoint: SIGNAL_DISPATCH_ENDPOINTS has none that is without fault, as 'manage.py check' "
    "tells"
)


class Command(BaseCommand):
    """Take what is due, whoever recorded it, and send it.

    The first SIGTERM or SIGINT finishes what is in flight, the second ends at once; what was not
    begun is handed back, the rest is found when its lease runs out.
    """

    help = "Send deliveries that are due, from this process."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--once",
            action="store_true",
            help="Send until nothing is due and no repair is left to be made that the admin was "
            "asked for, say what was done and what is left, exit with 0; with 1 if an outbox "
            "could not be looked into. What a RATE holds back for more than "
            f"{RATE_PATIENCE_SECONDS:g} s is left.",
        )
        parser.add_argument(
            "--concurrency", type=int, default=16, metavar="N", help="Threads that send (16)."
        )
        parser.add_argument(
            "--endpoint",
            action="append",
            metavar="ALIAS",
            help="Only this endpoint; may be given several times. The alias of an entry with a "
            "RESOLVER means all of its endpoints.",
        )
        parser.add_argument(
            "--database",
            action="append",
            metavar="ALIAS",
            help="Only the outbox of this database; may be given several times.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the worker in the foreground."""
        if options["concurrency"] < 1:
            raise CommandError("--concurrency must be at least 1.")
        refuse_unknown("--endpoint", options["endpoint"], endpoints)
        refuse_unknown("--database", options["database"], django_settings.DATABASES)

        def scope() -> Scope:
            return own_scope(options["endpoint"] or endpoints)

        heartbeat, tally = Heartbeat(scope, options["concurrency"]), Tally()

        def after_look(using: str) -> None:
            heartbeat.beat(using)
            tally.looked(using)

        worker = Worker(
            scope,
            max_senders=options["concurrency"],
            sweep_seconds=1.0,
            max_sleep_seconds=1.0,
            using=options["database"] or (),
            after_look=after_look,
            watching=not backends.under_test,
            eager=True,
            rate_patience=RATE_PATIENCE_SECONDS if options["once"] else inf,
        )
        with until_told() as told, tally.counting():
            worker.start()
            if options["once"]:  # it ends before it would look for these by itself
                worker.look_for_repairs()
            self._say(f"Sending for {', '.join(scope().names) or _NO_ENDPOINT}.", options)
            try:
                ended = _ended(worker) if options["once"] else repeat(object=False)
                while not told and not next(ended):
                    time.sleep(POLL_SECONDS)
            finally:
                worker.stop(DRAIN_SECONDS)
                heartbeat.stop()
        faults = worker.faults() if options["once"] else []
        if options["once"] and options["verbosity"] > 0:
            self._say(tally.report(scope(), worker.slowed(), whole=not faults), options)
        self._say("Stopped.", options)
        if faults:
            raise CommandError(" ".join(faults))

    def _say(self, text: str, options: dict[str, Any]) -> None:
        if options["verbosity"] > 0:
            self.stdout.write(text)
            self.stdout.flush()


def _ended(worker: Worker) -> Iterator[bool]:
    """Yield, each time it is asked, whether ``--once`` is at its end."""
    until = time.monotonic() + REACH_SECONDS
    while True:
        drained = _has_drained(worker)
        if not worker.is_failing:
            until = time.monotonic() + REACH_SECONDS
        yield drained or time.monotonic() > until


def _has_drained(worker: Worker) -> bool:
    try:
        worker.drain(1.0)
    except TimeoutError:
        return False
    # Hooks and repairs give what they record to a backend of this process, if it has threads: what
    # those did not begin is due now.
    return not any([backend.finish() for backend in backends.made()])  # noqa: C419 - all of them
