"""Dramatiq on Redis. Not durable: what the broker refuses at the commit is lost."""

from tests.benchmarks.contenders.base import Contender, on_commit_of_each_save
from tests.benchmarks.contenders.dramatiq_tasks import tell
from tests.benchmarks.settings import SENDERS


class OnDramatiq(Contender):
    """One process with as many threads as everybody has."""

    worker = (
        *("-m", "dramatiq", "tests.benchmarks.contenders.dramatiq_tasks"),
        *("--processes", "1", "--threads", str(SENDERS), "--skip-logging"),
    )

    def attach(self) -> None:
        """Send a message for each call."""
        on_commit_of_each_save(tell.send)
