"""The broker and the actor of Dramatiq."""

import os
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from tests.benchmarks.contenders.posting import post

dramatiq.set_broker(
    RedisBroker(url=os.environ["BENCH_BROKER"], namespace=os.environ["BENCH_QUEUE"])
)


@dramatiq.actor
def tell(payload: dict[str, Any]) -> None:
    """Make the call."""
    post(payload)
