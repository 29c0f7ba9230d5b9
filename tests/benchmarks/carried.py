"""Record calls, have them made, and tell how fast, at what cost, and what was written for it.

``python -m tests.benchmarks.carried CALLS [--by worker|threads|drain] [--workers N] [--delay S]
[--body BYTES] [--rows N] [--written]``. By ``worker``: nobody sends while calls are recorded. By
``threads``: of this process, while it saves. By ``drain``: as a worker of Celery or Django Tasks
does for its messages of ten, without a broker.
"""

import argparse
import base64
import json
import os
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from tests.benchmarks import counters, taking
from tests.benchmarks.sink import Sink

#: How many deliveries a message names, as a backend's ``batch_size`` has it.
MESSAGE = 10


def main() -> None:
    """Be that process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("calls", type=int)
    parser.add_argument("--by", choices=["worker", "threads", "drain"], default="worker")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--delay", type=float, default=0.0, help="of the sink, in seconds")
    parser.add_argument("--body", type=int, default=150, help="bytes of what is sent")
    parser.add_argument("--rows", type=int, default=0, help="that stand in the table before")
    parser.add_argument("--written", action="store_true", help="tell what was written, too")
    options = parser.parse_args()

    sink = taking.set_up()
    counted = taking.count_statements() if options.written else Counter[str]()
    send_bodies_of(options.body)
    sink.reset(options.delay)
    if options.written:
        taking.tell(**Writing(sink, options, counted).figures())
    else:
        save(options.calls)
        taking.tell(**by_workers(sink, options))


def send_bodies_of(size: int) -> None:
    """Let a call carry so many bytes, which cannot be compressed."""
    from tests.benchmarks.contenders.ours import SaleToSink

    def get_payload(self: SaleToSink, instance: Any, change: object) -> dict[str, str]:
        payload = {"number": instance.number, "note": ""}
        text = random.Random(instance.number).randbytes(size)
        room = max(0, size - len(json.dumps(payload)))
        return payload | {"note": base64.b85encode(text).decode()[:room]}

    SaleToSink.get_payload = get_payload  # type: ignore[method-assign]


def save(count: int, first: int = 0) -> None:
    """Save so many objects that are told of."""
    taking.save_in_transactions([str(number) for number in range(first, first + count)])


def by_workers(sink: Sink, options: argparse.Namespace, **more: str) -> dict[str, Any]:
    """Let workers make what is recorded; tell the rate, and the milliseconds of a call."""
    from tests.benchmarks.contenders.base import contender

    ours = contender("ours")
    os.environ.update(more)
    with taking.workers(ours.worker, options.workers) as pids:
        sink.wait_for(1)
        before = used(sink, pids)
        sink.wait_for(options.calls)
        taking.wait_until(ours.is_recorded)
        after = used(sink, pids)
    return {
        "per_second": steady_rate(sorted(sink.arrivals().values())),
        "cpu_ms": {who: (after[who] - before[who]) * 1000 / options.calls for who in after},
    }


def steady_rate(arrivals: list[int]) -> float:
    """Return calls a second, without the time in which workers begin, or run out of work.

    Answers are recorded as fast: a process has no more than some that are not.
    """
    first, last = len(arrivals) * 15 // 100, len(arrivals) * 85 // 100
    return (last - first) / ((arrivals[last] - arrivals[first]) / 1e9)


def used(sink: Sink, workers: list[int]) -> dict[str, float]:
    """Return what each part has used of the processors, in seconds."""
    return {
        "workers": sum(counters.cpu_of(workers).values()),
        "postgresql": sum(counters.cpu_of(counters.servers()).values()),
        "sink": sink.cpu_seconds(),
    }


class Writing:
    """Record calls and have them made, with an eye on what PostgreSQL writes meanwhile."""

    def __init__(self, sink: Sink, options: argparse.Namespace, counted: Counter[str]) -> None:
        self._sink = sink
        self._options = options
        self._counted = counted

    def figures(self) -> dict[str, Any]:
        """Return them, each for one call. What the save itself writes is not in them."""
        options, calls = self._options, self._options.calls
        counters.keep_dead_rows(keep=True)
        if options.rows:
            save(1, first=calls)
            counters.fill(options.rows)
        bare = self._bare()
        counters.checkpoint()
        before = counters.written()
        self._counted.clear()
        spent = counters.cpu_of_server(lambda: save(calls))
        recording = self._counted["save"]
        if options.by != "threads":  # whose calls are made meanwhile
            recorded = counters.written()
        sending = self._have_sent()
        after = counters.written()
        if options.by == "threads":
            recorded = after
        record = counters.difference(recorded, before, calls)
        record["postgresql_ms"] = spent * 1000 / calls
        told = {
            "record": {name: record[name] - bare.get(name, 0.0) for name in record},
            "send": counters.difference(after, recorded, calls),
            "sizes": counters.sizes(),
        }
        told["record"]["statements"] = recording / calls
        told["send"]["statements"] = sending / calls
        counters.pack()
        told["packed"] = counters.sizes()
        counters.keep_dead_rows(keep=False)
        return told

    def _bare(self) -> dict[str, float]:
        """Return what a save writes that nobody is told of, by the same names."""
        from django.db import transaction

        from tests.benchmarks.shop.models import BareSale

        calls = self._options.calls

        def save_bare() -> None:
            for number in range(calls):
                with transaction.atomic():
                    BareSale.objects.create(number=str(number))

        counters.checkpoint()
        before = counters.written()
        spent = counters.cpu_of_server(save_bare)
        bare = counters.difference(counters.written(), before, calls)
        return bare | {"postgresql_ms": spent * 1000 / calls}

    def _have_sent(self) -> int:
        """Have the calls made, and return with how many statements."""
        from tests.benchmarks.contenders.base import contender

        options = self._options
        if options.by == "worker":
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "statements"
                by_workers(self._sink, options, BENCH_COUNTED=str(path))
                return int(path.read_text())
        if options.by == "threads":
            ours = contender("ours")
            self._sink.wait_for(options.calls)
            taking.wait_until(ours.is_recorded)
            ours.stop()
            return self._counted["after"]
        return self._drain()

    def _drain(self) -> int:
        from signal_dispatch.draining import drain
        from signal_dispatch.models import Delivery
        from signal_dispatch.scopes import own_scope

        before = self._counted.total()
        scope = own_scope(["sink"])
        ids = list(Delivery.objects.unfinished().order_by("id").values_list("id", flat=True))
        for first in range(0, len(ids), MESSAGE):
            drain(scope, "default", ids[first : first + MESSAGE])
        return self._counted.total() - before - 1  # that which asked for the ids


if __name__ == "__main__":
    main()
