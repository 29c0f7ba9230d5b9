"""Keep what RESOLVERs answered for a while, so that each is asked once for all who need it."""

import logging
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from threading import Event, Lock, get_ident
from time import monotonic
from typing import Any

from signal_dispatch import asking
from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import EndpointUnresolved

logger = logging.getLogger("signal_dispatch")

#: Seconds that an endpoint is used before its RESOLVER is asked again.
KEEP_SECONDS = 60.0
#: The same for the word that there is none, or none that can be used.
KEEP_FAILURE_SECONDS = 5.0
#: The longest wait, in seconds, until a delivery is looked at again whose endpoint is not there.
MAX_WAIT_SECONDS = 600.0
#: How many answers are kept before those that nobody needs any more are dropped.
_MANY = 1024


@dataclass(frozen=True, slots=True)
class _Answer:
    """An endpoint, or why there is none; until when that is used; failures in a row, it included.

    ``cause`` is for the thread that asked, and not kept: its traceback may hold secrets.
    """

    until: float
    endpoint: Endpoint | None = None
    error_class: str = ""
    sentence: str = ""
    failures: int = 0
    cause: BaseException | None = None

    @property
    def longest_wait(self) -> float:
        return min(MAX_WAIT_SECONDS, KEEP_FAILURE_SECONDS * 2.0 ** min(self.failures, 20))

    def is_needed(self, now: float) -> bool:
        """Say whether it is in use, or its failures are still counted."""
        return now < self.until + (self.longest_wait if self.failures else 0.0)

    def endpoint_or_raise(self) -> Endpoint:
        if self.endpoint is not None:
            return self.endpoint
        # Spread, so that not all that wait for it come back at once.
        wait = self.longest_wait * (0.5 + 0.5 * _share())
        raise EndpointUnresolved(self.error_class, self.sentence, wait) from self.cause


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """What is asked just now, and by which thread."""

    by: int = field(default_factory=get_ident)
    answered: Event = field(default_factory=Event)


class _Memory:
    """What one process was answered, and what it asks just now. Whoever writes holds the lock."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = Lock()
        self.questions: dict[str, _Question] = {}
        self.answers: dict[str, _Answer] = {}
        self._many = _MANY

    def failures(self, alias: str) -> int:
        answer = self.answers.get(alias)
        return answer.failures if answer is not None else 0

    def keep(self, alias: str, answer: _Answer) -> None:
        self.answers[alias] = answer
        if len(self.answers) >= self._many:
            now = monotonic()
            self.answers = {a: kept for a, kept in self.answers.items() if kept.is_needed(now)}
            self._many = max(_MANY, 2 * len(self.answers))


class Resolved:
    """The endpoints that RESOLVERs named, in the memory of one process. Safe in any thread.

    No lock is held while a RESOLVER runs; others that need the same endpoint wait for its answer.
    """

    def __init__(self) -> None:
        self._memory = _Memory()

    def find(self, alias: str) -> Endpoint | None:
        """Return the endpoint, if it was named lately."""
        answer = self._fresh(alias)
        return answer.endpoint if answer is not None else None

    def is_open(self, alias: str) -> bool:
        """Say whether the RESOLVER has to be asked, as its last answer is too old."""
        return self._fresh(alias) is None

    def get(self, entry: Endpoint, written: Mapping[str, Any], alias: str) -> Endpoint:
        """Return the endpoint, and ask the RESOLVER of its entry if need be.

        ``written`` is the entry as it stands in settings. Raises ``EndpointUnresolved``.
        """
        memory, mine = self._current(), _Question()
        while True:
            with memory.lock:
                answer = self._fresh(alias)
                if answer is None:
                    question = memory.questions.setdefault(alias, mine)
            if answer is not None:
                return answer.endpoint_or_raise()
            if question is mine:
                answer = _ask_for_all(memory, mine, entry, written, alias)
                return answer.endpoint_or_raise()
            if question.by == get_ident():
                sentence = f"{entry.resolver} makes a call to the endpoint that it is asked for."
                raise EndpointUnresolved("resolver", sentence, KEEP_FAILURE_SECONDS)
            question.answered.wait()

    def forget(self) -> None:
        """Ask anew from now on; an answer that is under way is not kept."""
        self._memory = _Memory()

    def _fresh(self, alias: str) -> _Answer | None:
        answer = self._memory.answers.get(alias)
        return answer if answer is not None and monotonic() < answer.until else None

    def _current(self) -> _Memory:
        # In a forked child a lock may be held, and a question be asked, by a thread that is gone.
        if self._memory.pid != os.getpid():
            self.forget()
        return self._memory


def _ask_for_all(
    memory: _Memory, question: _Question, entry: Endpoint, written: Mapping[str, Any], alias: str
) -> _Answer:
    try:
        answer = _ask(entry, written, alias, memory.failures(alias))
        with memory.lock:
            memory.keep(alias, replace(answer, cause=None))
        return answer
    finally:  # without an answer, should this thread be ended: one that waits asks then
        with memory.lock:
            del memory.questions[alias]
        question.answered.set()


def _ask(entry: Endpoint, written: Mapping[str, Any], alias: str, failures: int) -> _Answer:
    try:
        endpoint = asking.ask(entry, written, alias)
    except EndpointUnresolved as failure:
        log = logger.info if failures else logger.warning
        log("%s Its deliveries wait.", failure, extra={"action": "endpoint_unresolved"})
        return _Answer(
            monotonic() + KEEP_FAILURE_SECONDS,
            error_class=failure.error_class,
            sentence=str(failure),
            failures=failures + 1,
            cause=failure.__cause__,
        )
    return _Answer(monotonic() + KEEP_SECONDS, endpoint)


def _share() -> float:
    return random.random()  # noqa: S311 - spreads load
