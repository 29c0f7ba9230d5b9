"""What one measured process does: save, have the calls made, and tell what it cost."""

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import django

from tests.benchmarks.sink import Sink

WARM_UP = 30
_PATIENCE = 300


def set_up() -> Sink:
    """Load Django, and return the sink that the environment names."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.settings")
    django.setup()
    return Sink(os.environ["BENCH_SINK"])


def tell(**figures: Any) -> None:
    """Print the figures for whoever started this process."""
    print(json.dumps(figures))  # noqa: T201


def wait_until(condition: Callable[[], bool]) -> None:
    """Look every few milliseconds; what takes too long is an error."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("What was waited for did not come.")
        time.sleep(0.005)


def save_in_transactions(numbers: Sequence[str]) -> list[int]:
    """Save a Sale for each number, each in a transaction; return what each took, in ns."""
    from django.db import transaction

    from tests.benchmarks.shop.models import Sale

    took = []
    for number in numbers:
        began = time.perf_counter_ns()
        with transaction.atomic():
            Sale.objects.create(number=number)
        took.append(time.perf_counter_ns() - began)
    return took


def save_again(count: int, objects: int) -> list[int]:
    """Save some Sales again and again, each in a transaction; return what each save took, in ns."""
    from django.db import transaction

    from tests.benchmarks.shop.models import Sale

    sales = [Sale(number=f"lane-{number}") for number in range(objects)]
    Sale.objects.bulk_create(sales)
    took = []
    for number in range(count):
        sale = sales[number % objects]
        sale.number = str(number)
        began = time.perf_counter_ns()
        with transaction.atomic():
            sale.save()
        took.append(time.perf_counter_ns() - began)
    return took


@contextmanager
def workers(command: Sequence[str], count: int = 1) -> Iterator[list[int]]:
    """Run so many workers, each a group of its own; none where there is no command."""
    started = [
        subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.DEVNULL, start_new_session=True
        )
        for _number in range(count if command else 0)
    ]
    try:
        yield [process.pid for process in started]
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def cpu_seconds() -> float:
    """Return what this process has used so far, in user mode and in the system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def milliseconds(nanoseconds: Sequence[int]) -> dict[str, float]:
    """Return the median and the 99th percentile."""
    return {
        "p50_ms": statistics.median(nanoseconds) / 1e6,
        "p99_ms": statistics.quantiles(nanoseconds, n=100)[98] / 1e6,
    }


def count_statements() -> Counter[str]:
    """Count statements on our tables from now on: in the ``save`` by this thread, ``after`` it."""
    from django.db import connection
    from django.db.backends.signals import connection_created

    counted: Counter[str] = Counter()
    saving = threading.current_thread()

    def wrapper(execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
        if "signal_dispatch_" in sql:
            counted["save" if threading.current_thread() is saving else "after"] += 1
        return execute(sql, params, many, context)

    def created(connection: Any, **kwargs: object) -> None:
        if wrapper not in connection.execute_wrappers:  # one that was opened again has it still
            connection.execute_wrappers.append(wrapper)

    connection_created.connect(created, weak=False)
    connection.close()
    return counted
