"""The task that workers of Django Tasks run. Its dotted path stands in their tables and queues.

Not named ``tasks``: every worker of Celery imports a module of that name.
"""

from collections.abc import Sequence

from signal_dispatch.backends.tasks import TasksBackend, django_tasks


def _settings_of_one() -> dict[str, str]:
    """Return an alias and a queue that are there: a task must name such when it is declared."""
    from signal_dispatch.backends import backends

    for alias in backends:
        backend = backends[alias]
        if isinstance(backend, TasksBackend):
            return {"backend": backend.tasks, "queue_name": backend.queue}
    return {}


@django_tasks.task(**_settings_of_one())  # type: ignore[untyped-decorator]
def drain(using: str, ids: Sequence[int], backend: str) -> None:
    """Send deliveries, as one message tells."""
    from signal_dispatch.backends import backends

    backends[backend].take(using, ids)  # type: ignore[attr-defined]
