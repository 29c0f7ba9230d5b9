"""How many calls a second go out: the formula of ``docs/explanation/scaling.md``, and its fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import log


def rate_of(calls: int, elsewhere: float, service: float) -> float:
    """Return calls a second, of so many at once that take turns at one thing.

    Each is ``elsewhere`` for so many seconds, then has the thing for ``service`` seconds, and
    waits for those that came before it.
    """
    waiting = rate = 0.0
    for number in range(1, calls + 1):
        held = service * (1 + waiting)
        rate = number / (elsewhere + held)
        waiting = rate * held
    return rate


def calls_per_second(
    latency: float,
    senders: int,
    processes: int = 1,
    *,
    around: float,
    interpreter: float,
    cpu: float,
    cores: int,
) -> float:
    """Return what so many processes make, each with so many calls at once to one endpoint.

    Seconds: ``around`` a call beside the endpoint's ``latency``, of the ``interpreter`` for a
    call, and of ``cpu`` of whatever shares the ``cores``.
    """
    alone = rate_of(senders, latency + around, interpreter)
    elsewhere = max(0.0, senders / alone - cpu / cores)
    return rate_of(senders * processes, elsewhere, cpu / cores)


@dataclass(frozen=True)
class Point:
    """Where a rate is measured. ``latency`` in seconds."""

    senders: int
    latency: float
    processes: int = 1


@dataclass(frozen=True)
class Costs:
    """What a call costs, in seconds; ``cpu`` on so many ``cores`` that all share."""

    around: float
    interpreter: float
    cpu: float
    cores: int

    def rate(self, point: Point) -> float:
        """Return the calls a second that are to be expected."""
        return calls_per_second(
            point.latency,
            point.senders,
            point.processes,
            around=self.around,
            interpreter=self.interpreter,
            cpu=self.cpu,
            cores=self.cores,
        )


def fitted(rates: Mapping[Point, float], *, cpu: float, cores: int) -> Costs:
    """Return the costs that come nearest to these rates; ``cpu`` is measured for itself."""

    def misses(costs: Costs) -> float:
        return sum(log(costs.rate(point) / rate) ** 2 for point, rate in rates.items())

    best, step = Costs(0.004, 0.002, cpu, cores), 2.0
    while step > 1.001:
        near = [
            Costs(best.around * first, best.interpreter * second, cpu, cores)
            for first, second in product((1 / step, 1.0, step), repeat=2)
        ]
        found = min(near, key=misses)
        if misses(found) >= misses(best):
            step **= 0.5
        best = min(best, found, key=misses)
    return best


@dataclass(frozen=True)
class Formula:
    """What a call costs where the endpoint answers at once, and where its sender has to wait.

    A thread that waited for an answer must be woken, and get the interpreter's lock back.
    """

    at_once: Costs
    waited: Costs

    def rate(self, point: Point) -> float:
        """Return the calls a second that are to be expected."""
        return (self.waited if point.latency else self.at_once).rate(point)


def errors(rates: Mapping[Point, float], formula: Formula) -> dict[Point, float]:
    """Return by how many per cent the formula misses what was measured."""
    return {point: (formula.rate(point) / rate - 1) * 100 for point, rate in rates.items()}
