"""Lines of the table: a figure of ours beside a rival's, and what it must reach."""

import operator
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "at least": operator.ge,
    "more than": operator.gt,
    "at most": operator.le,
}


@dataclass(frozen=True)
class Line:
    """A figure of several rounds. ``rival`` is of the same rounds, or one number for all.

    ``must`` is for example ``("at least", 1.0)`` and concerns the median of the ratios of the
    rounds; without a rival, of the figures themselves. Without ``must`` it is only told. ``exact``:
    it is the same on every machine, so no margin widens its limit.
    """

    figure: str
    unit: str
    ours: Sequence[float]
    rival: Sequence[float] = ()
    against: str = ""
    must: tuple[str, float] | None = None
    exact: bool = False

    @property
    def ratios(self) -> list[float]:
        """Our figure over the rival's, round by round."""
        return [ours / rival for ours, rival in zip(self.ours, self.rival, strict=True)]

    @property
    def judged(self) -> float:
        """What has to reach the limit."""
        return statistics.median(self.ratios if self.rival else self.ours)

    def passes(self, margin: float = 1.0) -> bool:
        """Say whether it reaches the limit, widened by the margin."""
        if self.must is None:
            return True
        how, limit = self._limit(self.must, margin)
        return _COMPARE[how](self.judged, limit)

    def _limit(self, must: tuple[str, float], margin: float) -> tuple[str, float]:
        how, limit = must
        if self.exact:
            return must
        return how, limit * margin if how == "at most" else limit / margin

    def as_dict(self, margin: float) -> dict[str, Any]:
        """Return it as JSON has it."""
        told: dict[str, Any] = {"figure": self.figure, "unit": self.unit, "ours": list(self.ours)}
        if self.rival:
            told |= {"against": self.against, "rival": list(self.rival), "ratios": self.ratios}
        if self.must is not None:
            told |= {"must": " ".join(map(str, self.must)), "margin": margin}
            told["passes"] = self.passes(margin)
        return told

    def as_row(self, margin: float) -> list[str]:
        """Return the cells of the table."""
        ratio = _spread(self.ratios, "x") if self.rival else ""
        must = ""
        if self.must:
            how, limit = self._limit(self.must, margin)
            must = f"{how} {_number(limit)}"
        verdict = {True: "pass", False: "FAIL"}[self.passes(margin)] if self.must else ""
        rival = _spread(self.rival, self.unit) if self.rival else ""
        return [
            self.figure,
            _spread(self.ours, self.unit),
            self.against,
            rival,
            ratio,
            must,
            verdict,
        ]


HEADINGS = ["figure", "ours", "against", "rival", "ratio", "must be", ""]


def table(lines: Sequence[Line], margin: float) -> str:
    """Lay the lines out in columns."""
    rows = [HEADINGS, *(line.as_row(margin) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _spread(values: Sequence[float], unit: str) -> str:
    middle = f"{_number(statistics.median(values))} {unit}".strip()
    if len(values) == 1 or min(values) == max(values):
        return middle
    return f"{middle} ({_number(min(values))} to {_number(max(values))})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
