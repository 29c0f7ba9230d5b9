"""A RESOLVER for tests: what it answers for each key, and how often it was asked."""

import threading
from typing import Any

#: By key: what is answered, raised, or called for an answer.
answers: dict[str, Any] = {}
#: The keys that were asked for, and in which thread.
asked: list[str] = []
threads: list[str] = []

#: Where all of them are, in directories of their own.
url = ""

PATH = "tests.tenants.endpoint_of"


def endpoint_of(key: str) -> Any:
    """Answer as the test says; ``None`` for a key that it says nothing about."""
    asked.append(key)
    threads.append(threading.current_thread().name)
    answer = answers.get(key)
    if isinstance(answer, BaseException):
        raise answer
    return answer() if callable(answer) else answer


def come(*keys: str, **more: Any) -> None:
    """Let these be there from now on, ``more`` said of each."""
    answers.update({key: {"URL": f"{url}{key}/", **more} for key in keys})


def forget() -> None:
    """Let nobody be known, and nothing be asked."""
    answers.clear()
    asked.clear()
    threads.clear()


async def answering_never(key: str) -> None:
    """Be what nobody awaits."""


def of_nobody() -> None:
    """Be what can't be asked for a key."""
