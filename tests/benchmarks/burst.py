"""Save as fast as one thread can, and wait until each call is received and recorded.

``python -m tests.benchmarks.burst CONTENDER SAVES [--counted] [--objects N]``
"""

import argparse
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.benchmarks import taking
from tests.benchmarks.sink import Sink

if TYPE_CHECKING:
    from tests.benchmarks.contenders.base import Contender


def main() -> None:
    """Be that process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("saves", type=int)
    parser.add_argument("--delay", type=float, default=0.0, help="of the sink, in seconds")
    parser.add_argument("--counted", action="store_true", help="count our statements")
    parser.add_argument("--objects", type=int, help="save so many again and again")
    options = parser.parse_args()

    sink = taking.set_up()
    from tests.benchmarks.contenders.base import contender

    one = contender(options.contender)
    one.attach()
    called = options.contender != "bare"
    counted = taking.count_statements() if options.counted else Counter[str]()
    with taking.workers(one.worker_beside()):
        sink.reset()
        taking.save_in_transactions([f"warm-{n}" for n in range(taking.WARM_UP)])
        if called:
            sink.wait_for(taking.WARM_UP)
        taking.wait_until(one.is_recorded)
        sink.reset(options.delay)
        counted.clear()
        measure(one, sink, options, counted, called=called)
        one.stop()


def measure(
    one: "Contender",
    sink: Sink,
    options: argparse.Namespace,
    counted: Counter[str],
    *,
    called: bool,
) -> None:
    """Take the figures of the burst, and print them."""
    began, cpu = time.monotonic(), taking.cpu_seconds()
    if options.objects:
        took = taking.save_again(options.saves, options.objects)
    else:
        took = taking.save_in_transactions([str(n) for n in range(options.saves)])
    in_the_saves = counted["save"]
    if called:
        sink.wait_for(options.saves)
    taking.wait_until(one.is_recorded)  # which asks the outbox, from this thread, too
    counted["save"] = in_the_saves
    seconds = time.monotonic() - began
    taking.tell(
        per_second=options.saves / seconds,
        cpu_ms=(taking.cpu_seconds() - cpu) * 1000 / options.saves,
        statements={when: n / options.saves for when, n in counted.items()},
        **taking.milliseconds(took),
    )


if __name__ == "__main__":
    main()
