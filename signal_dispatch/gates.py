"""Keep what this process has in hand from endpoints that must not be called."""

from functools import partial
from math import inf
from time import monotonic

from signal_dispatch import bars
from signal_dispatch.hand import Hand
from signal_dispatch.outboxes import do_all
from signal_dispatch.returning import return_jobs

#: Seconds after which an outbox is asked again while jobs are ready.
REFRESH_SECONDS = 1.0
#: Seconds after which an outbox is asked again while calls are made.
LOOK_SECONDS = 60.0


class Gatekeeper:
    """Ask the outboxes which endpoints are barred. Belongs to the bookkeeper's thread."""

    def __init__(self, hand: Hand) -> None:
        self._hand = hand
        self._asked: dict[str, float] = {}

    def next_at(self) -> float:
        """Return when an outbox is to be asked because of what is ready; the lock is held."""
        if not self._hand.health.watching:
            return inf
        asked = (self._asked.get(using, -inf) for using in self._hand.queue.outboxes())
        return min(asked, default=inf) + REFRESH_SECONDS

    def refresh(self) -> None:
        """Ask where the last answer is too old for what is ready."""
        with self._hand.lock:
            outboxes = self._hand.queue.outboxes() if self._hand.health.watching else ()
        old = [u for u in outboxes if self._asked.get(u, -inf) + REFRESH_SECONDS <= monotonic()]
        do_all([partial(self.ask, using) for using in old])

    def look_again(self, using: str) -> None:
        """Ask where calls are made and nothing else made anybody ask for long.

        Else a process whose calls never wait would not hear of an incident that others noticed.
        """
        if self._asked.setdefault(using, monotonic()) + LOOK_SECONDS <= monotonic():
            self.ask(using)

    def ask(self, using: str) -> None:
        """Ask one outbox; what is ready for a barred endpoint goes back to the table."""
        hand = self._hand
        if not hand.health.watching:
            return
        began = monotonic()
        found = bars.standing(using)
        self._asked[using] = began
        with hand.lock:
            hand.health.bar(using, found.barred)
            hand.health.learn_failing(using, found.failing)
            turned_away = hand.queue.remove(hand.health.turns_away)
            hand.ready.notify_all()
        return_jobs(hand, turned_away)
