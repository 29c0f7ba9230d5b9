"""What so many calls a second take, all the time: each is one call's share, multiplied."""

from collections.abc import Callable
from math import ceil

from tests.benchmarks.curve_tables import DAY, Curves, Writings, number, size, table

RATES = (100, 1_000, 10_000)
#: Of the arithmetic: what ``dispatch_worker`` has by default, and an endpoint that is no fast one.
SENDERS = 16
LATENCY = 0.2
#: PostgreSQL's defaults: transactions after which rows are frozen whatever the load
#: (``autovacuum_freeze_max_age``), and the WAL within which a checkpoint begins (``max_wal_size``).
FREEZE_AGE = 200_000_000
MAX_WAL_BYTES = 2**30


def bill(curves: Curves, writings: Writings) -> str:
    """Return the table."""
    lines = [*_written(writings), *_kept(writings), *_run(curves, writings)]
    rows = [[what, one, *(at(rate) for rate in RATES)] for what, one, at in lines]
    return table(["", "of one call", *(f"{rate:,} calls/s" for rate in RATES)], rows)


#: What it is, of one call, and what so many calls a second make of it.
_Line = tuple[str, str, Callable[[int], str]]


def _written(writings: Writings) -> list[_Line]:
    statements, transactions, dead, wal = (
        writings.of("worker", name) for name in ("statements", "transactions", "dead", "wal")
    )
    among = writings.of("among", "wal")
    numbers = 1 + transactions  # with that of the save
    return [
        ("statements", number(statements), lambda rate: f"{number(rate * statements)}/s"),
        ("transaction numbers", number(numbers), lambda rate: f"{number(rate * numbers)}/s"),
        (
            f"… {FREEZE_AGE:,} of them",
            "",
            lambda rate: f"every {_while(FREEZE_AGE / (rate * numbers))}",
        ),
        ("dead versions of rows", number(dead), lambda rate: f"{number(rate * dead)}/s"),
        ("WAL", f"{number(wal)} bytes", lambda rate: _stream(rate * wal)),
        (
            "… 1 GiB of it (`max_wal_size`)",
            "",
            lambda rate: f"every {_while(MAX_WAL_BYTES / (rate * wal))}",
        ),
        ("WAL after a checkpoint", f"{number(among)} bytes", lambda rate: _stream(rate * among)),
    ]


def _kept(writings: Writings) -> list[_Line]:
    packed = sum(writings.bytes_of_row("worker", "packed").values())
    return [
        (
            "rows and indexes, packed",
            f"{number(packed)} bytes",
            lambda rate: f"{size(rate * DAY * packed)} a day",
        ),
    ]


def _run(curves: Curves, writings: Writings) -> list[_Line]:
    costs = curves.formula.waited
    server = curves.cpu_ms["postgresql"] + writings.by["worker"]["record"]["postgresql_ms"]
    workers = curves.cpu_ms["workers"]
    taken = LATENCY + costs.around

    def processes(rate: int) -> int:
        return ceil(max(rate * costs.interpreter, rate * taken / SENDERS))

    return [
        ("PostgreSQL", f"{server:.2f} ms", lambda rate: _cores(rate * server / 1000)),
        ("workers", f"{workers:.2f} ms", lambda rate: _cores(rate * workers / 1000)),
        (
            "processes, as Python's lock allows",
            f"{costs.interpreter * 1000:.2f} ms",
            lambda rate: number(ceil(rate * costs.interpreter)),
        ),
        (
            f"… with {SENDERS} senders, for {LATENCY * 1000:g} ms",
            f"{taken * 1000:.0f} ms",
            lambda rate: number(ceil(rate * taken / SENDERS)),
        ),
        ("their connections", "1 a process", lambda rate: number(processes(rate))),
        (
            "… where hooks run",
            f"{1 + SENDERS} a process",
            lambda rate: number((1 + SENDERS) * processes(rate)),
        ),
    ]


def _stream(bytes_a_second: float) -> str:
    return f"{number(bytes_a_second / 1e6, 2)} MB/s"


def _cores(needed: float) -> str:
    return f"{number(needed, 2)} processors"


def _while(seconds: float) -> str:
    for unit, length in (("days", DAY), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{number(seconds / length, 2)} {unit}"
    return f"{number(seconds, 2)} s"
