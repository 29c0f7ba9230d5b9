"""Django Tasks in the database, by django-tasks-db: durable, one call after the other."""

from django import VERSION
from django.db.models.signals import post_save

if VERSION < (6, 0):
    from django_tasks import task
else:
    from django.tasks import task
from django_tasks_db.models import DBTaskResult

from tests.benchmarks.contenders.base import Contender, payload_of
from tests.benchmarks.contenders.posting import post
from tests.benchmarks.shop.models import Sale


@task()
def tell(payload: dict[str, str]) -> None:
    """Make the call."""
    post(payload)


class OnTasksDb(Contender):
    """One worker; its kind knows no threads."""

    worker = ("-m", "django", "db_worker", "--interval", "0.05", "--no-startup-delay")

    def attach(self) -> None:
        """Write a task in the transaction of each save."""
        post_save.connect(self._saved, sender=Sale)

    def _saved(self, sender: type[Sale], instance: Sale, **kwargs: object) -> None:
        tell.enqueue(payload_of(instance))

    def is_recorded(self) -> bool:
        """Say whether all tasks are done."""
        return not DBTaskResult.objects.exclude(status="SUCCESSFUL").exists()
