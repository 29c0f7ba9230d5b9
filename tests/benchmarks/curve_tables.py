"""The curves as tables, in the Markdown of ``docs/explanation/scaling.md``."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.capacity import Formula, Point, errors

DAY = 86_400
#: Per cent by which the formula may be off.
WITHIN = 20


@dataclass(frozen=True)
class Curves:
    """Rates by point, the formula fitted to some of them, and whose milliseconds a call takes."""

    machine: Mapping[str, Any]
    rates: Mapping[Point, float]
    formula: Formula
    cpu_ms: Mapping[str, float]
    fitted: Sequence[Point]


@dataclass(frozen=True)
class Writings:
    """What was written for so many calls, by kind of run; one stood among so many ``rows``."""

    calls: int
    rows: int
    by: Mapping[str, Mapping[str, Mapping[str, float]]]

    def of(self, kind: str, name: str) -> float:
        """Return what is written of a call, when it is recorded and when it is sent."""
        run = self.by[kind]
        return run["record"].get(name, 0.0) + run["send"].get(name, 0.0)

    def bytes_of_row(self, kind: str, sizes: str) -> dict[str, float]:
        """Return the bytes of a delivery and its attempt; ``sizes`` or ``packed``."""
        return {name: size / self.calls for name, size in self.by[kind][sizes].items()}


def parts(curves: Curves, writings: Writings) -> dict[str, str]:
    """Return the parts of the page by their names."""
    return {
        "machine": _machine(curves),
        "senders": _rates(curves, [p for p in curves.rates if p.processes == 1], "senders"),
        "processes": _rates(curves, _of_many(curves), "processes"),
        "constants": _constants(curves),
        "held": _held(curves),
        "written": _written(writings),
        "rows": _rows(writings),
        "retention": _retention(writings),
    }


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lay out a table of Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _machine(curves: Curves) -> str:
    on = curves.machine
    return (
        f"PostgreSQL {on['postgresql']} with its defaults, Python {on['python']}, and the endpoint"
        f" share {on['processors']} processors ({on['machine']})."
    )


def _of_many(curves: Curves) -> list[Point]:
    latencies = {point.latency for point in curves.rates if point.processes > 1}
    most = max(point.senders for point in curves.rates)
    return [p for p in curves.rates if p.senders == most and p.latency in latencies]


def _rates(curves: Curves, points: Sequence[Point], by: str) -> str:
    latencies = sorted({point.latency for point in points})
    rows = []
    for number in sorted({getattr(point, by) for point in points}):
        of_row = {point.latency: point for point in points if getattr(point, by) == number}
        rows.append([str(number), *(_rate(curves, of_row[latency]) for latency in latencies)])
    return table([by, *(f"{latency * 1000:g} ms" for latency in latencies)], rows)


def _rate(curves: Curves, point: Point) -> str:
    mark = " \\*" if point in curves.fitted else ""
    return f"{number(curves.rates[point])} / {number(curves.formula.rate(point))}{mark}"


def _constants(curves: Curves) -> str:
    kinds = {"at once": curves.formula.at_once, "later": curves.formula.waited}
    rows = [
        [name, *(f"{seconds * 1000:.2f} ms" for seconds in (c.around, c.interpreter, c.cpu))]
        for name, c in kinds.items()
    ]
    return table(["the endpoint answers", "`around`", "`interpreter`", "`cpu`"], rows)


def _held(curves: Curves) -> str:
    missed = errors(curves.rates, curves.formula)
    judged = {point: error for point, error in missed.items() if point not in curves.fitted}
    inside = sum(abs(error) <= WITHIN for error in judged.values())
    middle = statistics.median(abs(error) for error in judged.values())
    farthest = max(judged, key=lambda point: abs(judged[point]))
    return (
        f"Of the {len(judged)} points that the constants do not come from, {inside} lie within"
        f" {WITHIN} % of the formula. Half of them lie within {middle:.0f} %. The farthest is off"
        f" by {judged[farthest]:+.0f} %: {farthest.senders} senders, {farthest.processes}"
        f" {'process' if farthest.processes == 1 else 'processes'},"
        f" {farthest.latency * 1000:g} ms."
    )


_WRITTEN = {
    "statements": "statements",
    "transactions": "transactions",
    "inserted": "rows written",
    "dead": "dead versions",
    "entries": "index entries",
    "wal": "bytes of WAL",
}


def _written(writings: Writings) -> str:
    kinds = {
        "threads": "threads",
        "worker": "worker",
        "drain": "Celery, Django Tasks",
        "large": "worker, body of 2 kB",
        "among": f"worker, among {writings.rows:,} rows, right after a checkpoint",
    }
    rows = []
    for kind, title in kinds.items():
        figures = [writings.of(kind, name) for name in _WRITTEN]
        rows.append([title, *(number(figure, 3) for figure in figures)])
    return table(["sent by", *_WRITTEN.values()], rows)


_PIECES = {
    "delivery_heap": "outbox, rows",
    "delivery_indexes": "outbox, indexes",
    "attempt_heap": "attempts, rows",
    "attempt_indexes": "attempts, indexes",
}


def _rows(writings: Writings) -> str:
    columns = [
        writings.bytes_of_row(kind, sizes)
        for kind in ("worker", "large")
        for sizes in ("packed", "sizes")
    ]
    rows = [[title, *(number(c[name]) for c in columns)] for name, title in _PIECES.items()]
    rows.append(["together", *(number(sum(column.values())) for column in columns)])
    return table(
        ["bytes of a call", "150 bytes, packed", "as written", "2 kB, packed", "as written"], rows
    )


def _retention(writings: Writings) -> str:
    packed, loose = (
        sum(writings.bytes_of_row("worker", sizes).values()) for sizes in ("packed", "sizes")
    )
    rows = []
    for rate in (1, 10, 100, 1000):
        kept = [rate * DAY * days for days in (1, 7, 30)]
        rows.append([f"{rate:,}", *(f"{size(n * packed)} to {size(n * loose)}" for n in kept)])
    return table(["calls/s", "1 day", "7 days", "30 days"], rows)


def size(count: float) -> str:
    """Write a number of bytes, of which one call leaves some hundred at least."""
    return f"{number(count / 1e9, 2)} GB" if count < 1e12 else f"{number(count / 1e12, 2)} TB"


def number(value: float, digits: int = 3) -> str:
    """Write a number with so many digits that mean something, and none after 100."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
