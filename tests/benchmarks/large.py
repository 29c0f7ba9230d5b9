"""What large tables cost: ``python -m tests.benchmarks.large`` prints it.

A claim of 64 deliveries among ever more rows, and how the memory of a worker grows that finds
100,000 deliveries due and an endpoint that hardly answers.
"""

import re
import statistics
import time
from pathlib import Path
from typing import Any

from tests.benchmarks import taking

CLAIMED = 64
SIZES = (1_000, 100_000, 1_000_000)
DUE = 100_000


def main() -> None:
    """Be that process."""
    sink = taking.set_up()
    claims = claim_times()
    taking.tell(claims=claims, grown_mib=grown(sink))


def claim_times() -> dict[int, float]:
    """Return the median milliseconds of a claim, for each size of the table."""
    from django.db import transaction

    from signal_dispatch import claims
    from signal_dispatch.outbox import Lease
    from signal_dispatch.scopes import Scope
    from tests.acceptance.rows import copy, tidy
    from tests.deliveries import delivery

    scope = Scope("", frozenset({"sink"}), frozenset({("shop.SaleToSink", "shop.sale")}))
    kinds: list[dict[str, Any]] = [
        {"state": "delivered", "available_at": None},
        {"state": "waiting", "available_at": None, "lane": "busy"},
        {"held_by": "another", "epoch": 1},
    ]
    ours = {"endpoint": "sink", "dispatch": "shop.SaleToSink", "model": "shop.sale"}
    there, took = 0, {}
    for size in SIZES:
        for kind in kinds:
            held = {"available_at": later()} if "held_by" in kind else {}
            copy(delivery(**ours, **kind, **held), (size - there) // len(kinds))
        there = size
        copy(delivery(**ours), 2 * CLAIMED)
        tidy()
        times = []
        for _again in range(20):
            with transaction.atomic():
                began = time.perf_counter()
                taken = claims.claim("default", Lease("me", 60), scope, CLAIMED)
                times.append((time.perf_counter() - began) * 1000)
                transaction.set_rollback(True)
            assert len(taken) == CLAIMED, "all that is due can be taken"
        took[size] = statistics.median(times)
    return took


def later() -> Any:
    """Return the database's time of an hour from now."""
    from signal_dispatch.clocks import DatabaseNow

    return DatabaseNow(3600)


def grown(sink: Any) -> float:
    """Return by how many MiB a worker grows from its first call on."""
    from signal_dispatch.models import Delivery
    from tests.acceptance.rows import copy
    from tests.benchmarks.contenders.base import contender
    from tests.deliveries import delivery

    Delivery.objects.all().delete()
    ours = contender("ours")
    sink.reset(1.0)
    due = {"endpoint": "sink", "dispatch": "shop.SaleToSink", "model": "shop.sale"}
    first = delivery(**due, path="sales/first", body=b"x" * 1000)
    with taking.workers(ours.worker) as (pid,):
        sink.wait_for(1)
        before = resident(pid)
        copy(first, DUE)
        most = before
        until = time.monotonic() + 30
        while time.monotonic() < until:
            most = max(most, resident(pid))
            time.sleep(0.2)
    return (most - before) / 1024


def resident(pid: int) -> int:
    """Return the KiB of memory that a process holds."""
    found = re.search(r"^VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


if __name__ == "__main__":
    main()
