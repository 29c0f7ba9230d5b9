"""Huey on Redis. Not durable: what a worker has taken when it is killed is lost."""

from tests.benchmarks.contenders.base import Contender, on_commit_of_each_save
from tests.benchmarks.contenders.huey_tasks import tell
from tests.benchmarks.settings import SENDERS


class OnHuey(Contender):
    """One process with as many threads as everybody has."""

    worker = (
        *("-m", "huey.bin.huey_consumer", "tests.benchmarks.contenders.huey_tasks.huey"),
        *("--workers", str(SENDERS), "--quiet", "--no-periodic"),
    )

    def attach(self) -> None:
        """Put each call into the queue."""
        on_commit_of_each_save(tell)
