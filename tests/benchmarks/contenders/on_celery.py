"""Celery: a message for each call. Not durable: what the broker refuses at the commit is lost."""

from tests.benchmarks.contenders.base import Contender, on_commit_of_each_save
from tests.benchmarks.contenders.celery_tasks import tell
from tests.benchmarks.settings import SENDERS


class OnRedis(Contender):
    """Its threads, as many as everybody has: its processes were slower here."""

    worker = (
        *("-m", "celery", "-A", "tests.benchmarks.contenders.celery_tasks", "worker"),
        *("--pool", "threads", "--concurrency", str(SENDERS), "--loglevel", "ERROR"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    )

    def attach(self) -> None:
        """Send a message for each call."""
        on_commit_of_each_save(tell.delay)


class OnRabbitMQ(OnRedis):
    """The same, by another broker."""
