"""Saves that follow one another closely."""

from dataclasses import dataclass
from math import inf


@dataclass(slots=True)
class Burst:
    """A burst is on until so many seconds after the last save, and long after so many notes."""

    seconds: float
    notes: int
    noted_at: float = -inf
    _in_a_row: int = 0

    def note(self, now: float) -> None:
        """Note that something was saved."""
        self._in_a_row = self._in_a_row + 1 if now < self.noted_at + self.seconds else 1
        self.noted_at = now

    @property
    def until(self) -> float:
        """Return until when a long one goes on, if nobody saves again; -inf where none is."""
        return self.noted_at + self.seconds if self._in_a_row >= self.notes else -inf
