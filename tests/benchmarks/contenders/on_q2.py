"""Django Q2 with its queue in the database: durable."""

from django.db.models.signals import post_save
from django_q.models import OrmQ, Success
from django_q.tasks import async_task

from tests.benchmarks.contenders.base import Contender, payload_of
from tests.benchmarks.shop.models import Sale


class OnQ2(Contender):
    """Its cluster of as many processes as others have threads."""

    worker = ("-m", "django", "qcluster")

    def __init__(self) -> None:
        self._calls = 0

    def attach(self) -> None:
        """Write a task in the transaction of each save."""
        post_save.connect(self._saved, sender=Sale)

    def _saved(self, sender: type[Sale], instance: Sale, **kwargs: object) -> None:
        self._calls += 1
        async_task("tests.benchmarks.contenders.posting.post", payload_of(instance))

    def is_recorded(self) -> bool:
        """Say whether the queue is empty and each call has its record."""
        return not OrmQ.objects.exists() and Success.objects.count() >= self._calls
