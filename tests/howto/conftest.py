"""What tests of the pages share."""

import sys
from collections.abc import Iterator

import pytest

import tests.shop
import tests.shop.models
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
