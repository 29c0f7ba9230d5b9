"""Workers of Celery send: the processes that save publish what they committed."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from django.core import checks
from django.core.checks import CheckMessage
from django.utils.module_loading import import_string

from signal_dispatch import readers
from signal_dispatch.backends.published import PublishedBackend
from signal_dispatch.exceptions import LibraryMissing

try:
    from celery import current_app, shared_task
    from celery.signals import worker_process_shutdown, worker_ready
except ModuleNotFoundError as error:
    if error.name != "celery":
        raise
    raise LibraryMissing("celery", "celery") from error

#: Seconds that a broker may take to accept a connection, and to answer.
BROKER_SECONDS: Final = 1.0
#: Seconds after which a message that only says "look" is not worth a look any more.
LOOK_SECONDS: Final = 60

#: A fixed name, so that messages survive a move of this module.
TASK: Final = "signal_dispatch.drain"

# Else a broker that is gone would be tried for minutes, and one that hangs waited for for ever.
_PATIENCE: Final = {
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.2,
    "interval_max": 0.2,
}
_BOUNDS: Final[Mapping[str, Mapping[str, Any]]] = {
    # Without a confirmation what is written to a dead connection is lost in silence.
    "amqp": {
        "confirm_publish": True,
        "read_timeout": BROKER_SECONDS,
        "write_timeout": BROKER_SECONDS,
    },
    "redis": {"socket_timeout": BROKER_SECONDS, "socket_connect_timeout": BROKER_SECONDS},
}


class CeleryBackend(PublishedBackend):
    """Let Celery's workers send.

    ``app``: the dotted path of the Celery app; without it the one that is current when the site
    is loaded. ``queue``: where the messages go; without it as the app's ``task_routes`` say. The
    others are those of ``PublishedBackend``.
    """

    left_to = "Celery's workers"
    options = {"app": readers.dotted_path, "queue": readers.text, **PublishedBackend.options}

    def __init__(self, alias: str, /, **options: Any) -> None:
        super().__init__(alias, **options)
        self._queue = self._options.pop("queue", None)
        #: Kept: in another thread than the one that made the app none is current.
        self._app = _app_at(self._options.pop("app", ""))
        self._connection: Any = None

    def publish(self, using: str, ids: Sequence[int]) -> None:
        """Publish one message, on a connection of our own."""
        try:
            self._app.tasks[TASK].apply_async(
                (using, list(ids), self.alias),
                connection=self._connected(),
                queue=self._queue,
                expires=None if ids else LOOK_SECONDS,
                retry=False,
                ignore_result=True,
                confirm_timeout=BROKER_SECONDS,
            )
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Close the connection to the broker."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # whatever keeps it from a polite end, it is of no use
                connection.release()

    def check(self) -> list[CheckMessage]:
        """Warn where nobody told Celery which broker to use."""
        messages = super().check()
        if not (self._app.conf.broker_write_url or self._app.conf.broker_url):
            messages.append(
                checks.Warning(
                    f'SIGNAL_DISPATCH_BACKENDS["{self.alias}"] is the CeleryBackend, and no '
                    f"Celery app with a broker is known here: messages go to amqp://localhost.",
                    hint="Set broker_url, and import the app in the __init__.py of your project.",
                    id="signal_dispatch.W020",
                )
            )
        return messages

    def _connected(self) -> Any:
        """Return the connection; it is bounded in time, whatever the app's own are."""
        if self._connection is None:
            told = self._app.conf.broker_transport_options or {}
            bounds = _BOUNDS.get(self._app.connection_for_write().transport.driver_type, {})
            self._connection = self._app.connection_for_write(
                connect_timeout=BROKER_SECONDS, transport_options={**told, **_PATIENCE, **bounds}
            )
        return self._connection

    def _after_fork(self) -> None:
        super()._after_fork()
        self._connection = None  # it is the parent's


def _app_at(path: str) -> Any:
    if not path:
        return current_app._get_current_object()  # noqa: SLF001 - a proxy has no other way
    try:
        return import_string(path)
    except ImportError as error:
        raise ValueError(f"app {error}") from error


def _drain(using: str, ids: Sequence[int], backend: str) -> None:
    """Send deliveries, as one message tells."""
    _backend(backend).take(using, ids)


# Redelivered when the worker dies: harmless, since whoever has claimed a delivery alone sends it.
drain = shared_task(name=TASK, ignore_result=True, acks_late=True, max_retries=0)(_drain)


def _backend(alias: str) -> Any:
    from signal_dispatch.backends import backends

    return backends[alias]


def _all() -> list[CeleryBackend]:
    from signal_dispatch.backends import backends

    return [made for alias in backends if isinstance(made := backends[alias], CeleryBackend)]


def _ready(**kwargs: Any) -> None:
    """Look from now on for what nobody told a worker of."""
    for backend in _all():
        backend.start()


def _ending(**kwargs: Any) -> None:
    """Publish what is in hand: this process ends without Python's exit handlers."""
    for backend in _all():
        backend.stop()


worker_ready.connect(_ready, weak=False, dispatch_uid="signal_dispatch.worker_ready")
worker_process_shutdown.connect(_ending, weak=False, dispatch_uid="signal_dispatch.ending")
