"""What all contenders have in common, and where each is."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

from django.db import transaction
from django.db.models.signals import post_save

from tests.benchmarks.shop.models import FIELDS, Sale

#: The module of each, and its class there.
PLACES = {
    "bare": "in_process.Bare",
    "ours": "ours.Ours",
    "pool": "in_process.Pool",
    "thread": "in_process.ThreadEach",
    "celery-redis": "on_celery.OnRedis",
    "celery-amqp": "on_celery.OnRabbitMQ",
    "dramatiq": "on_dramatiq.OnDramatiq",
    "huey": "on_huey.OnHuey",
    "tasks-db": "on_tasks_db.OnTasksDb",
    "django-q2": "on_q2.OnQ2",
    "procrastinate": "on_procrastinate.OnProcrastinate",
}


class Contender:
    """One of them."""

    #: What Python is called with to begin a worker; empty where nothing else has to run.
    worker: ClassVar[tuple[str, ...]] = ()

    def attach(self) -> None:
        """Let each save of a Sale make a call."""

    def worker_beside(self) -> tuple[str, ...]:
        """Return the worker that has to run while this process saves."""
        return self.worker

    def is_recorded(self) -> bool:
        """Say whether all that it records of calls is recorded."""
        return True

    def stop(self) -> None:
        """Let go of what was begun in this process."""


def contender(name: str) -> Contender:
    """Return one of ``PLACES``; Django is set up by then."""
    module, _dot, kind = PLACES[name].rpartition(".")
    found: Contender = getattr(import_module(f"tests.benchmarks.contenders.{module}"), kind)()
    return found


def payload_of(sale: Sale) -> dict[str, Any]:
    """Return what a call carries, as JSON has it."""
    return {name: str(getattr(sale, name)) for name in FIELDS}


def on_commit_of_each_save(call: Callable[[dict[str, Any]], object]) -> None:
    """Call this with the payload after the commit of each save, as most sites write it by hand."""

    def saved(sender: type[Sale], instance: Sale, **kwargs: object) -> None:
        transaction.on_commit(partial(call, payload_of(instance)))

    post_save.connect(saved, sender=Sale, weak=False)
