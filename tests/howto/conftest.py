"""What tests of the pages share."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tests.shop
import tests.shop.models
from signal_dispatch import checks
from signal_dispatch.checks.problems import Problem
from signal_dispatch.registry import registry


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let pages say ``shop``, as their readers would; forget what they registered meanwhile."""
    monkeypatch.setitem(sys.modules, "shop", tests.shop)
    monkeypatch.setitem(sys.modules, "shop.models", tests.shop.models)
    before = set(registry)
    yield
    for dispatch in set(registry) - before:
        registry.remove(type(dispatch))


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
