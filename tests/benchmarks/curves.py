"""Measure the curves of ``docs/explanation/scaling.md``, and hold a formula against them.

``python -m tests.benchmarks.curves [--short] [--page] [--json PATH]``: prints the tables as they
stand on the page; with ``--page`` it writes them there. Some eight minutes on a machine that does
nothing else; ``--short`` only shows that it works.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.bench import Bench, bench, machine
from tests.benchmarks.bill import bill
from tests.benchmarks.capacity import Costs, Formula, Point, errors, fitted
from tests.benchmarks.curve_tables import Curves, Writings, parts
from tests.benchmarks.page_parts import filled

PAGE = Path(__file__).parents[2] / "docs/explanation/scaling.md"

SENDERS = (1, 2, 4, 8, 16)
LATENCIES = (0.0, 0.01, 0.05, 0.2)
PROCESSES = (2, 4)
LATENCIES_OF_MANY = (0.0, 0.05, 0.2)
#: The formula's constants come from these, for an endpoint that answers at once and for others:
#: one sender, and the busiest process, which also tells what a call uses of the processors.
AT_ONCE = (Point(1, 0.0), Point(16, 0.0))
WAITED = (Point(1, 0.05), Point(16, 0.01))


@dataclass(frozen=True)
class Size:
    """How much is measured: seconds for each point, calls whose writing is looked at, and rows."""

    seconds: float
    calls: int
    rows: int


WHOLE = Size(seconds=7, calls=10_000, rows=200_000)
SHORT = Size(seconds=0.5, calls=200, rows=2_000)


def main(arguments: list[str]) -> int:
    """Measure all, tell of it, and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure how this package scales.")
    parser.add_argument("--short", action="store_true", help="only see that it works")
    parser.add_argument("--page", action="store_true", help="write the tables into the page")
    parser.add_argument("--json", type=Path, default=Path("build/curves.json"))
    options = parser.parse_args(arguments)
    size = SHORT if options.short else WHOLE
    began = time.monotonic()
    with bench() as where:
        curves = measured(where, size)
        writings = Writings(
            calls=size.calls, rows=size.rows, by=dict(told(writing(where, size), "written"))
        )
    texts = parts(curves, writings) | {"bill": bill(curves, writings)}
    for name, text in texts.items():
        print(f"\n{name}:\n\n{text}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(curves, writings), indent=1) + "\n")
    if options.page:
        PAGE.write_text(filled(PAGE.read_text(), texts))
    print(f"\n{time.monotonic() - began:.0f} s.")
    return 0


def measured(where: Bench, size: Size) -> Curves:
    """Measure the rates, and fit the formula to some of them."""
    runs = dict(told(rates(where, size), "calls/s"))
    found = {point: run["per_second"] for point, run in runs.items()}
    on = machine()

    def costs(points: tuple[Point, Point]) -> Costs:
        cpu = sum(runs[points[-1]]["cpu_ms"].values()) / 1000
        return fitted({one: found[one] for one in points}, cpu=cpu, cores=on["processors"])

    formula = Formula(costs(AT_ONCE), costs(WAITED))
    return Curves(on, found, formula, runs[WAITED[-1]]["cpu_ms"], AT_ONCE + WAITED)


def points() -> list[Point]:
    """Return where rates are measured."""
    alone = [Point(senders, latency) for latency in LATENCIES for senders in SENDERS]
    return alone + [Point(16, one, number) for one in LATENCIES_OF_MANY for number in PROCESSES]


def rates(where: Bench, size: Size) -> Iterator[tuple[Point, dict[str, Any]]]:
    """Let workers make a backlog at each point."""
    for point in points():
        at_once = point.senders * point.processes
        guess = min(at_once / (point.latency + 0.003), 600 * point.processes, 1000)
        # Whole rounds, so that the last one is as good as the others.
        calls = at_once * max(4, round(size.seconds * guess / at_once))
        yield (
            point,
            run(
                where,
                point.senders,
                calls,
                *("--delay", point.latency, "--workers", point.processes),
            ),
        )


def writing(where: Bench, size: Size) -> Iterator[tuple[str, dict[str, Any]]]:
    """Look at what PostgreSQL writes, by who sends, by the body, and among many rows."""
    few = max(100, size.calls // 5)
    kinds: dict[str, tuple[int, tuple[str | float, ...]]] = {
        "worker": (size.calls, ()),
        "large": (size.calls, ("--body", 2048)),
        "threads": (few, ("--by", "threads")),
        "drain": (few, ("--by", "drain")),
        "among": (few, ("--rows", size.rows)),
    }
    for kind, (calls, more) in kinds.items():
        backend = "threads.ThreadsBackend" if kind == "threads" else "deferred.DeferredBackend"
        yield kind, run(where, 16, calls, "--written", *more, backend=backend)


def run(
    where: Bench,
    senders: int,
    calls: int,
    *arguments: str | float,
    backend: str = "deferred.DeferredBackend",
) -> dict[str, Any]:
    """Run one measured process."""
    return where.run(
        "carried", calls, *arguments, BENCH_BACKEND=backend, BENCH_SENDERS=str(senders)
    )


def told(
    runs: Iterator[tuple[Any, dict[str, Any]]], what: str
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Print each as it comes."""
    for key, figures in runs:
        rate = figures.get("per_second")
        print(key, what, "" if rate is None else f"{rate:.1f}", flush=True)
        yield key, figures


def as_json(curves: Curves, writings: Writings) -> dict[str, Any]:
    """Return all figures as JSON has them."""
    missed = errors(curves.rates, curves.formula)
    return {
        "machine": curves.machine,
        "costs": asdict(curves.formula),
        "cpu_ms": curves.cpu_ms,
        "rates": [
            {
                **asdict(point),
                "measured": rate,
                "predicted": curves.formula.rate(point),
                "error_percent": missed[point],
                "fitted": point in curves.fitted,
            }
            for point, rate in curves.rates.items()
        ],
        "writing": writings.by,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
