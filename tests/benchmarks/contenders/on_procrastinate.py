"""Procrastinate: durable, its queue in PostgreSQL."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from django.db.models.signals import post_save
from procrastinate.contrib.django import app
from procrastinate.contrib.django.models import ProcrastinateJob

from tests.benchmarks.contenders.base import Contender, payload_of
from tests.benchmarks.contenders.posting import post
from tests.benchmarks.settings import SENDERS
from tests.benchmarks.shop.models import Sale

# Its own threads for what is not async are one.
_pool = ThreadPoolExecutor(SENDERS)


@app.task(name="tell")
async def tell(payload: dict[str, str]) -> None:
    """Make the call, in a thread."""
    await asyncio.get_running_loop().run_in_executor(_pool, post, payload)


class OnProcrastinate(Contender):
    """One process, with as many threads beside its loop as everybody has."""

    worker = (
        *("-m", "tests.benchmarks.command", "tests.benchmarks.contenders.on_procrastinate"),
        *("procrastinate", "worker", "--concurrency", str(SENDERS)),
    )

    def attach(self) -> None:
        """Write a job in the transaction of each save."""
        post_save.connect(self._saved, sender=Sale)

    def _saved(self, sender: type[Sale], instance: Sale, **kwargs: object) -> None:
        tell.defer(payload=payload_of(instance))

    def is_recorded(self) -> bool:
        """Say whether no job is left."""
        return not ProcrastinateJob.objects.filter(status__in=["todo", "doing"]).exists()
