"""Tell the outbox how calls fared; open and close breakers by what it knows."""

from collections import Counter
from functools import partial
from time import monotonic

from signal_dispatch import bars, counting, incidents
from signal_dispatch.endpoints import breaker_of
from signal_dispatch.gates import Gatekeeper
from signal_dispatch.hand import Hand
from signal_dispatch.health import News
from signal_dispatch.jobs import Place
from signal_dispatch.outboxes import do_all
from signal_dispatch.recovering import bring_forward
from signal_dispatch.sweeping import Sweeper


class Accountant:
    """Count what the senders noted, and judge it. Belongs to the bookkeeper's thread."""

    def __init__(self, hand: Hand, sweeper: Sweeper, gatekeeper: Gatekeeper) -> None:
        self._hand = hand
        self._sweeper = sweeper
        self._gatekeeper = gatekeeper

    def account(self, until: float) -> None:
        """Tell what is to be told by then, ``inf`` for all. What is refused is kept."""
        do_all(
            [
                partial(self._tell_news, until),
                partial(self._end_incidents, until),
                self._bring_forward,
            ]
        )

    def _tell_news(self, until: float) -> None:
        hand = self._hand
        with hand.lock:
            untold = hand.health.take_news(until)

        def tell(place: Place) -> None:
            self._tell(place, untold[place])
            del untold[place]

        try:
            do_all([partial(tell, place) for place in list(untold)])
        finally:
            with hand.lock:
                for place, news in untold.items():
                    hand.health.give_back(place, news)

    def _end_incidents(self, until: float) -> None:
        hand = self._hand
        with hand.lock:
            calm = hand.health.take_calm(until)
        for place in calm:
            if incidents.end_if_well(*place, apart=True):
                with hand.lock:
                    hand.health.end_failing(place)

    def _bring_forward(self) -> None:
        hand = self._hand
        with hand.lock:
            left = hand.health.take_recovered(monotonic())

        def bring(place: Place) -> None:
            if bring_forward(*place):
                self._sweeper.expect(0.0)
            left.remove(place)

        try:
            do_all([partial(bring, place) for place in list(left)])
        finally:
            with hand.lock:
                for place in left:
                    hand.health.recover(place)

    def _tell(self, place: Place, news: News) -> None:
        """Count, and judge after that commit: of processes that fail at once the last sees all."""
        if news.counts:
            counting.add(*place, news.counts)
            with self._hand.lock:
                self._hand.health.counted(place, news.counts)
            news.to_judge |= news.counts["breaker_failed"] > 0
            news.counts = Counter()
            self._gatekeeper.look_again(place.using)
        if news.to_judge:
            self._judge(place)
            news.to_judge = False
        if news.has_probed:
            self._conclude_probe(place, succeeded=news.probe_succeeded)

    def _judge(self, place: Place) -> None:
        health = self._hand.health
        with self._hand.lock:
            known = health.is_failing(place)
        verdict = incidents.judge(*place, known=known, apart=True)
        if verdict.fails:
            with self._hand.lock:
                health.begin_failing(place)
        if verdict.opens and (breaker := breaker_of(place.endpoint)):
            self._gatekeeper.ask(place.using)
            self._sweeper.expect(breaker.pause)
        self._learn(place, verdict.attempts, verdict.failed)

    def _conclude_probe(self, place: Place, *, succeeded: bool | None) -> None:
        if succeeded is False:  # when to probe next stands in the outbox since it began
            return
        if succeeded is None:
            bars.give_up_probe(*place)
        else:
            bars.close_breaker(*place)
            self._learn(place, 0, 0)
        self._gatekeeper.ask(place.using)
        with self._hand.lock:
            if succeeded:
                self._hand.health.recover(place)
            self._sweeper.ask()

    def _learn(self, place: Place, attempts: int, failed: int) -> None:
        with self._hand.lock:
            self._hand.health.learn(place, attempts, failed)
            self._hand.ready.notify_all()
