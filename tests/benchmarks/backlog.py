"""Record calls while nobody sends, then begin workers and wait until each is made and recorded.

``python -m tests.benchmarks.backlog CONTENDER CALLS [--workers N]``. The rate counts from the first
arrival, so what a worker needs to begin is left out.
"""

import argparse
import time

from tests.benchmarks import taking


def main() -> None:
    """Be that process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender")
    parser.add_argument("calls", type=int)
    parser.add_argument("--delay", type=float, default=0.0, help="of the sink, in seconds")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()

    sink = taking.set_up()
    from tests.benchmarks.contenders.base import contender

    one = contender(options.contender)
    one.attach()
    sink.reset(options.delay)
    taking.save_in_transactions([str(number) for number in range(options.calls)])
    with taking.workers(one.worker, options.workers):
        sink.wait_for(options.calls)
        taking.wait_until(one.is_recorded)
        recorded = time.monotonic_ns()
    first, *_others, last = sorted(sink.arrivals().values())
    taking.tell(
        per_second=options.calls / ((recorded - first) / 1e9),
        received_per_second=options.calls / ((last - first) / 1e9),
    )


if __name__ == "__main__":
    main()
