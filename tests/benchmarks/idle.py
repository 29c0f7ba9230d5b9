"""Save now and then, and see how long after the commit the call arrives.

``python -m tests.benchmarks.idle SAVES``
"""

import argparse
import random
import time

from tests.benchmarks import taking


def main() -> None:
    """Be that process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("saves", type=int)
    options = parser.parse_args()

    sink = taking.set_up()
    from django.db import transaction

    from tests.benchmarks.contenders.base import contender
    from tests.benchmarks.shop.models import Sale

    ours = contender("ours")
    committed: dict[str, int] = {}
    sink.reset()
    chance = random.Random(7)
    for number in range(options.saves):
        path = f"/sales/{number}"
        with transaction.atomic():
            # Registered before ours, so it runs first.
            transaction.on_commit(lambda at=path: committed.update({at: time.monotonic_ns()}))
            Sale.objects.create(number=str(number))
        sink.wait_for(number + 1)
        taking.wait_until(ours.is_recorded)
        time.sleep(chance.uniform(0.005, 0.03))  # a site at its ease
    arrived = sink.arrivals()
    ours.stop()
    taking.tell(**taking.milliseconds([arrived[path] - at for path, at in committed.items()]))


if __name__ == "__main__":
    main()
