"""The figures, each with its rival, in turn."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.bench import Bench
from tests.benchmarks.lines import Line
from tests.benchmarks.settings import SENDERS

#: Those of whose processes several of the lines tell.
POOL = "a pool of threads"
TITLES = {
    "pool": POOL,
    "thread": "a thread for each call",
    "celery-redis": "Celery on Redis",
    "celery-amqp": "Celery on RabbitMQ",
    "dramatiq": "dramatiq on Redis",
    "huey": "huey on Redis",
    "tasks-db": "django-tasks-db",
    "django-q2": "django-q2 (ORM)",
    "procrastinate": "procrastinate",
}
#: What a backlog must reach beside each: those that are only told have none.
WORKERS: dict[str, tuple[str, float] | None] = {
    "dramatiq": ("at least", 1.0),
    "huey": None,
    "procrastinate": ("at least", 2.5),
    "tasks-db": ("at least", 5.0),
    "django-q2": None,
}
BACKENDS = {
    "threads.ThreadsBackend": "threads",
    "deferred.DeferredBackend": "deferred",
    "celery.CeleryBackend": "Celery",
    "tasks.TasksBackend": "Django Tasks",
}


@dataclass(frozen=True)
class Size:
    """How much is done: rounds, saves in each, and whether all of it.

    What is not the whole leaves out most rivals, and judges no figure by milliseconds.
    """

    rounds: int
    saves: int
    whole: bool


def all_lines(bench: Bench, size: Size) -> Iterator[Line]:
    """Take all figures, yielding lines as they come."""
    yield from burst(bench, size)
    yield from slow_sink(bench, size)
    yield from backlog(bench, size)
    yield from saves_at_rest(bench, size)
    yield from statements(bench, size)
    yield from idle(bench, size)
    if size.whole:
        yield from more_workers(bench, size)
        yield from large_tables(bench, size)


def burst(bench: Bench, size: Size) -> Iterator[Line]:
    """Save as fast as one thread can; the sink answers at once."""
    names = ["ours", "pool"] + (["thread", "celery-redis", "celery-amqp"] if size.whole else [])
    took = _rounds(bench, "burst", names, size.rounds, size.saves)
    for rival, limit in (("pool", "at least"), ("celery-redis", "more than")):
        yield from _line(took, "threads: calls in a burst", "/s", "per_second", rival, (limit, 1.0))
    for rival in ("thread", "celery-amqp"):
        yield from _line(took, "threads: calls in a burst", "/s", "per_second", rival)
    yield from _line(took, "threads: p50 of a save then", "ms", "p50_ms", "pool", ("at most", 0.85))
    yield from _line(took, "threads: p99 of a save then", "ms", "p99_ms", "pool")
    for rival in ("thread", "celery-redis", "celery-amqp"):
        yield from _line(took, "threads: p50 of a save then", "ms", "p50_ms", rival)
    yield from _line(took, "threads: CPU of a call", "ms", "cpu_ms", "pool", ("at most", 0.8))
    if not size.whole:
        return
    rivals = _rounds(bench, "burst", ["dramatiq", "huey", *WORKERS], 1, size.saves)
    for name, (run,) in rivals.items():
        yield Line(f"{TITLES[name]}: calls in a burst", "/s", [run["per_second"]])
        yield Line(f"{TITLES[name]}: p50 of a save then", "ms", [run["p50_ms"]])


def slow_sink(bench: Bench, size: Size) -> Iterator[Line]:
    """Save as fast as one thread can; the sink takes 50 ms for each call."""
    delay = 0.05
    names = ["ours", "pool"] + (["celery-redis"] if size.whole else [])
    took = _rounds(bench, "burst", names, size.rounds, size.saves, "--delay", delay)
    ours = [run["per_second"] for run in took["ours"]]
    most = [SENDERS / delay] * len(ours)
    what = "threads: calls, sink at 50 ms"
    yield Line(what, "/s", ours, most, "8 senders / 0.05 s", ("at least", 0.95))
    for rival in names[1:]:
        yield from _line(took, what, "/s", "per_second", rival)


def backlog(bench: Bench, size: Size) -> Iterator[Line]:
    """Let one worker make what was recorded before it began."""
    names = ["ours", *(WORKERS if size.whole else ["tasks-db"])]
    took = _rounds(bench, "backlog", names, size.rounds, size.saves)
    for rival, must in WORKERS.items():
        yield from _line(took, "worker: calls of a backlog", "/s", "per_second", rival, must)


def saves_at_rest(bench: Bench, size: Size) -> Iterator[Line]:
    """Save with no call running, beside saves of a model that nobody is told of."""
    for backend, title in BACKENDS.items() if size.whole else list(BACKENDS.items())[:2]:
        if title == "Celery" and not bench.has("celery-redis"):
            continue
        wait = ["--wait"] if title == "threads" else []
        took = [
            bench.run("saves", size.saves // 4, *wait, broker="redis", BENCH_BACKEND=backend)
            for _round in range(size.rounds)
        ]
        for where, most in (("autocommit", 2.5), ("atomic", 1.8)):
            told = [run[f"told_{where}"]["p50_ms"] for run in took]
            bare = [run[f"bare_{where}"]["p50_ms"] for run in took]
            what = f"{title}: p50 of a save, {where}"
            yield Line(what, "ms", told, bare, "a bare save", ("at most", most))
            if where == "autocommit":
                more = [ours - rival for ours, rival in zip(told, bare, strict=True)]
                must = ("at most", 5.0) if size.whole else None
                yield Line(f"{what}, more than bare", "ms", more, must=must)


def statements(bench: Bench, size: Size) -> Iterator[Line]:
    """Count statements on our tables, in the save and after it."""
    kinds: dict[str, list[str | float]] = {"distinct objects": [], "20 objects": ["--objects", 20]}
    for kind, more in kinds.items():
        runs = [
            bench.run("burst", "ours", size.saves, "--counted", *more)["statements"]
            for _round in range(size.rounds)
        ]
        in_save = [run["save"] for run in runs]
        after = [run.get("after", 0) for run in runs]
        most = (3.0, 3.0) if more else (1.0, 0.2)
        must = ("at most", most[0])
        yield Line(f"statements in a save, {kind}", "", in_save, must=must, exact=True)
        yield Line(f"statements after it, {kind}", "", after, must=("at most", most[1]))


def idle(bench: Bench, size: Size) -> Iterator[Line]:
    """See how soon a call arrives where nothing else is to be done."""
    took = [bench.run("idle", size.saves // 8) for _round in range(size.rounds)]
    p50 = [run["p50_ms"] for run in took]
    must = ("at most", 5.0) if size.whole else None
    yield Line("threads: commit to arrival, p50", "ms", p50, must=must)
    yield Line("threads: commit to arrival, p99", "ms", [run["p99_ms"] for run in took])


def more_workers(bench: Bench, size: Size) -> Iterator[Line]:
    """Let one, two and four workers share a backlog."""
    for delay in (0.0, 0.05):
        for workers in (1, 2, 4):
            many = size.saves * 2
            run = bench.run_contender(
                "backlog", "ours", many, "--workers", workers, "--delay", delay
            )
            what = f"workers: {workers}, sink at {delay * 1000:g} ms"
            yield Line(what, "/s", [run["per_second"]])


def large_tables(bench: Bench, size: Size) -> Iterator[Line]:
    """Fill the table, and see what a claim takes and what a process keeps in memory."""
    run = bench.run("large")
    for count, took in run["claims"].items():
        yield Line(f"claim of 64 among {int(count):,} rows", "ms", [took])
    yield Line("worker: memory for 100,000 due", "MiB", [run["grown_mib"]], must=("at most", 50))


def _rounds(
    bench: Bench, module: str, names: Sequence[str], rounds: int, *arguments: str | float
) -> dict[str, list[dict[str, Any]]]:
    """Run the contenders in turn, each round beginning with another one."""
    names = [name for name in dict.fromkeys(names) if bench.has(name)]
    took: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            took[name].append(bench.run_contender(module, name, *arguments))
    return took


def _line(
    took: dict[str, list[dict[str, Any]]],
    figure: str,
    unit: str,
    key: str,
    rival: str,
    must: tuple[str, float] | None = None,
) -> Iterator[Line]:
    """Yield the line, where the rival took part."""
    if rival in took:
        ours, theirs = ([run[key] for run in took[name]] for name in ("ours", rival))
        yield Line(figure, unit, ours, theirs, TITLES[rival], must)
