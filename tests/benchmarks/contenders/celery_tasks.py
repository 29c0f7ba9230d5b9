"""The Celery app of the benchmark; it knows no models, so that its worker can load it first."""

import os
from typing import Any

from celery import Celery

from tests.benchmarks.contenders.posting import post

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    task_default_queue=os.environ["BENCH_QUEUE"],
    task_ignore_result=True,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.tell")
def tell(payload: dict[str, Any]) -> None:
    """Make the call."""
    post(payload)
