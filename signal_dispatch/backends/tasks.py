"""Workers of Django Tasks send: the processes that save enqueue a task for what they committed."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from django import VERSION
from django.core import checks
from django.core.checks import CheckMessage

from signal_dispatch import readers
from signal_dispatch.backends.published import PublishedBackend
from signal_dispatch.exceptions import LibraryMissing

#: The package of Django Tasks: Django's own from 6.0 on, which the other one was for before.
LIBRARY = "django.tasks" if VERSION >= (6, 0) else "django_tasks"

try:
    django_tasks = import_module(LIBRARY)
except ModuleNotFoundError as error:
    if error.name != LIBRARY:
        raise
    raise LibraryMissing("django-tasks", "tasks") from error


class TasksBackend(PublishedBackend):
    """Let the workers of a backend of Django Tasks send.

    ``tasks``: the alias in ``TASKS`` (default). ``queue``: its queue (default). The others are
    those of ``PublishedBackend``.
    """

    left_to = "the workers of Django Tasks"
    options = {"tasks": readers.text, "queue": readers.text, **PublishedBackend.options}

    def __init__(self, alias: str, /, **options: Any) -> None:
        super().__init__(alias, **options)
        self.tasks: str = self._options.pop("tasks", "default")
        self.queue: str = self._options.pop("queue", "default")

    def publish(self, using: str, ids: Sequence[int]) -> None:
        """Enqueue one task."""
        self._task().enqueue(using, list(ids), self.alias)

    def check(self) -> list[CheckMessage]:
        """Try the task, and warn of backends that have no workers."""
        try:
            engine = self._task().get_backend()
        except Exception as error:  # noqa: BLE001 - Django and the other package have their own
            return [*super().check(), self._unusable(error)]
        name = type(engine).__name__
        if name not in _WITHOUT_WORKERS:
            return super().check()
        return [
            *super().check(),
            checks.Warning(
                f'SIGNAL_DISPATCH_BACKENDS["{self.alias}"] leaves the calls to '
                f'TASKS["{self.tasks}"], whose {name} has no workers: {_WITHOUT_WORKERS[name]}.',
                hint="Use a backend of Django Tasks that has workers, or "
                "signal_dispatch.backends.threads.ThreadsBackend.",
                id="signal_dispatch.W021",
            ),
        ]

    def _task(self) -> Any:
        # Decorated when it is imported, which Django refuses where the settings don't fit.
        entry = import_module("signal_dispatch.backends.drain_task")
        return entry.drain.using(backend=self.tasks, queue_name=self.queue)

    def _unusable(self, error: Exception) -> CheckMessage:
        return checks.Error(
            f'SIGNAL_DISPATCH_BACKENDS["{self.alias}"] can\'t use TASKS["{self.tasks}"] and its '
            f"queue {self.queue!r}: {error}",
            hint='Name in "OPTIONS" an alias as "tasks" and one of its QUEUES as "queue".',
            id="signal_dispatch.E064",
        )


_WITHOUT_WORKERS = {
    "ImmediateBackend": "they are made one after the other by a thread of the process that saves",
    "DummyBackend": "they are never made",
}
