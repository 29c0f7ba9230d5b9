"""Pause an endpoint, or let it be called again."""

import getpass
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from signal_dispatch.exceptions import UnknownEndpoint
from signal_dispatch.management.outboxes import outboxes
from signal_dispatch.pausing import pause, resume


class Command(BaseCommand):
    """Let no process call the endpoint until it is resumed; what is to be sent waits."""

    help = "Pause an endpoint for all processes, or resume it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument("endpoint", metavar="ALIAS")
        parser.add_argument("--reason", default="", help="Shown by dispatch_status.")
        parser.add_argument(
            "--resume", action="store_true", help="Let it be called again, closing its breaker."
        )
        parser.add_argument(
            "--database",
            action="append",
            metavar="ALIAS",
            help="Only in the outbox of this database; may be given several times.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Write it into each outbox."""
        for using in outboxes(options["database"]):
            try:
                told = _change(using, options)
            except UnknownEndpoint as error:
                raise CommandError(str(error)) from error
            if options["verbosity"]:
                self.stdout.write(f"{options['endpoint']} {told} (database {using!r}).")


def _change(using: str, options: dict[str, Any]) -> str:
    endpoint, by = options["endpoint"], _whoever()
    if options["resume"]:
        done = resume(endpoint, by=by, using=using)
        return "is called again" if done else "was neither paused nor open"
    done = pause(endpoint, by=by, reason=options["reason"], using=using)
    if done:
        return "is paused"
    return "was paused already" + (", and has the new reason" if options["reason"] else "")


def _whoever() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "somebody at the command line"
