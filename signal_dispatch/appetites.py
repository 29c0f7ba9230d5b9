"""How much to take from the table at once: more, while what was taken is gone in a moment."""

from math import inf
from time import monotonic

#: A batch is gone in a moment if half of its calls are begun within so many seconds.
MOMENT_SECONDS = 0.25
#: How many times the least size a batch may have.
MOST = 8


class Appetite:
    """The size of a batch, between ``least`` and some times that.

    A look at the table costs the same for few as for many, so quick calls are taken in large
    batches. Slow ones are taken in small ones: what this process holds nobody else may send.
    """

    def __init__(self, least: int) -> None:
        self.size = least
        self._least = least
        self._was_filled = False
        self._taken_at = -inf
        self._begun = 0

    @property
    def enough(self) -> int:
        """How many in hand keep the senders busy until the next look."""
        return self.size // 2

    def note(self, *, filled: bool, begun: int) -> None:
        """Note that a batch was taken just now, and whether there was as much as it may hold.

        ``begun`` counts the calls that were begun so far. That a batch was taken a moment ago says
        nothing of how quick they are: it may have been one of first attempts, and this of retries.
        """
        now = monotonic()
        seconds, self._taken_at = now - self._taken_at, now
        calls, self._begun = begun - self._begun, begun
        if filled and self._was_filled and seconds < MOMENT_SECONDS and calls >= self.enough:
            self.size = min(2 * self.size, MOST * self._least)
        elif seconds > 4 * MOMENT_SECONDS:
            self.size = self._least
        self._was_filled = filled
