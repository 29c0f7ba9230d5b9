"""Those who call from the process that saves, and lose what it has not sent when it ends."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.benchmarks.contenders.base import Contender, on_commit_of_each_save
from tests.benchmarks.contenders.posting import post
from tests.benchmarks.settings import SENDERS


class Bare(Contender):
    """Nobody is told of anything."""


class Pool(Contender):
    """Some threads, each with a session of ``requests``."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(SENDERS)
        self._calls: list[Future[None]] = []

    def attach(self) -> None:
        """Give each call to the pool."""
        on_commit_of_each_save(lambda payload: self._calls.append(self._pool.submit(post, payload)))

    def is_recorded(self) -> bool:
        """Say whether all calls are through; an error in one is raised."""
        return all(call.done() and call.result() is None for call in self._calls)

    def stop(self) -> None:
        """End its threads."""
        self._pool.shutdown()


class ThreadEach(Contender):
    """A thread for each call, as a handler of ``post_save`` has it first."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []

    def attach(self) -> None:
        """Start a thread for each call."""
        on_commit_of_each_save(self._call)

    def _call(self, payload: dict[str, Any]) -> None:
        thread = threading.Thread(target=post, args=[payload])
        self._threads.append(thread)
        thread.start()

    def is_recorded(self) -> bool:
        """Say whether all calls are through."""
        return not any(thread.is_alive() for thread in self._threads)
