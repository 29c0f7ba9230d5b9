"""Huey's queue and its task."""

import os
from typing import Any

from huey import RedisHuey

from tests.benchmarks.contenders.posting import post

huey = RedisHuey(os.environ["BENCH_QUEUE"], url=os.environ["BENCH_BROKER"], results=False)


@huey.task()
def tell(payload: dict[str, Any]) -> None:
    """Make the call."""
    post(payload)
