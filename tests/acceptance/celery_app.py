"""The Celery app of a site: its broker and queue come from the environment.

A worker is ``python -m celery -A tests.acceptance.celery_worker worker``.
"""

import os

from celery import Celery
from kombu import Exchange, Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

#: Seconds after which RabbitMQ takes away what a run that was broken off has left.
EXPIRY_SECONDS = 600


def make(broker: str, queue: str) -> Celery:
    """Return an app whose messages no other run meets."""
    app = Celery("site", broker=broker)
    app.conf.update(
        task_default_queue=queue,
        task_queues=[Queue(queue, Exchange(""), routing_key=queue, expires=EXPIRY_SECONDS)],
        task_default_exchange="",
        task_default_routing_key=queue,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
    )
    if broker.startswith("redis"):
        app.conf.broker_transport_options = {"global_keyprefix": f"{queue}:"}
    return app


if "BROKER" in os.environ:
    app = make(os.environ["BROKER"], os.environ["QUEUE"])
