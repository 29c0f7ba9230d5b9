"""How long to sleep between two looks at the outboxes."""

import random

#: The sleep, in seconds, while nothing is scheduled, up to a fifth longer: what other processes
#: leave behind is found after that.
MAX_SLEEP_SECONDS = 60.0
#: The shortest, after something was found.
MIN_SLEEP_SECONDS = 0.05


class Naps:
    """The sleeps of one who looks, of ``longest`` seconds and up to a fifth more.

    ``eager``: after a find the next one is short, and those that follow longer and longer.
    """

    def __init__(self, longest: float, *, eager: bool) -> None:
        self.longest = longest
        self._eager = eager
        #: The longest after something was found lately.
        self._nap = MIN_SLEEP_SECONDS if eager else longest

    def after(self, wait: float) -> float:
        """Return how long to sleep where a look is due in ``wait`` seconds; 0 after a find."""
        return _spread(self._shortened(max(MIN_SLEEP_SECONDS, wait), found=wait <= 0), self.longest)

    def _shortened(self, wait: float, *, found: bool) -> float:
        if not self._eager:
            return wait
        self._nap = MIN_SLEEP_SECONDS if found else min(2 * self._nap, self.longest)
        return min(wait, self._nap)


def _spread(wait: float, longest: float) -> float:
    """Keep processes from looking all at once: a little later if idle, else a little sooner."""
    if wait >= longest:
        return wait * (1 + 0.2 * share())
    return wait * (1 - 0.2 * share()) if wait > 1 else wait


def share() -> float:
    """Return a part of 1 by chance, for what several processes must not do at one moment."""
    return random.random()  # noqa: S311 - spreads load
