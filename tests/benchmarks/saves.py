"""Save a model that somebody is told of and one that nobody is, in turn, with no call running.

``python -m tests.benchmarks.saves SAVES [--wait]``: our backend is the one that ``BENCH_BACKEND``
names.
"""

import argparse
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from tests.benchmarks import taking


def main() -> None:
    """Be that process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("saves", type=int)
    parser.add_argument("--wait", action="store_true", help="until each call is made")
    options = parser.parse_args()

    sink = taking.set_up()
    from django.db import transaction

    from tests.benchmarks.contenders.base import contender

    ours = contender("ours")
    told: dict[str, dict[str, float]] = {}
    for where, context in {"autocommit": nullcontext, "atomic": transaction.atomic}.items():
        sink.reset()
        wait = ours.is_recorded if options.wait else None
        for kind, took in in_turn(options.saves, context, wait).items():
            told[f"{kind}_{where}"] = taking.milliseconds(took)
    ours.stop()
    taking.tell(**told)


def in_turn(
    saves: int,
    context: Callable[[], AbstractContextManager[object]],
    is_recorded: Callable[[], bool] | None,
) -> dict[str, list[int]]:
    """Return what the saves of each kind took, in ns."""
    from tests.benchmarks.shop.models import BareSale, Sale

    kinds = {"bare": BareSale, "told": Sale}
    took: dict[str, list[int]] = {kind: [] for kind in kinds}
    chance = random.Random(7)
    for number in range(-taking.WARM_UP, saves):
        for kind in chance.sample(sorted(kinds), 2):
            began = time.perf_counter_ns()
            with context():
                kinds[kind].objects.create(number=str(number))
            ended = time.perf_counter_ns()
            if number >= 0:
                took[kind].append(ended - began)
            if kind == "told" and is_recorded is not None:
                taking.wait_until(is_recorded)
    return took


if __name__ == "__main__":
    main()
