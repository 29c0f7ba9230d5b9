"""What tests of the pages share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from signal_dispatch import checks
from signal_dispatch.checks.problems import Problem
from tests.howto.pages import shop_of_the_tests


@pytest.fixture
def shop() -> Iterator[None]:
    """Let pages say ``shop``, and forget what they registered."""
    with shop_of_the_tests():
        yield


@pytest.fixture
def write(shop: None, settings: Any) -> Callable[..., dict[str, Any]]:
    """Run blocks of a page as files of the shop's, one after the other; give their names.

    Settings of the package that a block sets are in force for the time of the test.
    """

    def write(*blocks: str, **given: Any) -> dict[str, Any]:
        names = {"__name__": "tests.shop.dispatches", **given}
        for block in blocks:
            exec(compile(block, "dispatches.py", "exec"), names)  # noqa: S102 - our own pages
        for name, value in names.items():
            if name.startswith("SIGNAL_DISPATCH_"):
                setattr(settings, name, value)
        return names

    return write


@pytest.fixture
def faults() -> Callable[[], set[str]]:
    """Return the ids of what ``manage.py check`` finds, but for advice that our tests ignore."""
    ignored = {Problem.BULK_UNSEEN.id, Problem.SQLITE_NOT_IMMEDIATE.id}
    return lambda: {str(message.id) for message in checks.check()} - ignored
