"""Fixtures that every test module may use."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from signal_dispatch import ModelDispatch
from signal_dispatch.backends import backends
from signal_dispatch.registry import registry
from tests.receiver import Receiver

DispatchClass = type[ModelDispatch[Any]]


@pytest.fixture
def declare() -> Iterator[Callable[..., DispatchClass]]:
    """Register dispatches for the time of a test: ``declare(Order, fields=(), ...)``."""
    declared: list[DispatchClass] = []

    def declare(model: Any, *more: Any, base: type = ModelDispatch, **attributes: Any) -> Any:
        defaults = {"name": "shop.Told", "endpoint": "crm", "fields": ["number", "status"]}
        made = type("Told", (base,), defaults | attributes)
        registry.add(made, model, *more)
        declared.append(made)
        return made

    yield declare
    for made in declared:
        registry.remove(made)


@pytest.fixture
def as_in_production() -> Iterator[None]:
    """Lift all that holds under test: threads run, errors of hooks become FAILED deliveries."""
    backends.live += 1
    yield
    try:
        backends.forget()
    finally:
        backends.live -= 1


@pytest.fixture
def receiver(settings: Any) -> Iterator[Receiver]:
    """Play the remote API ``crm`` on a loopback port."""
    with Receiver(lambda request: (200, {"Content-Type": "application/json"}, b"{}")) as made:
        settings.SIGNAL_DISPATCH_ENDPOINTS = {
            "crm": {
                "URL": made.url,
                "RETRY": {"delays": [0, 0.05, 0.05, 0.05, 0.05], "jitter": 0},
                # Tests that let very many attempts fail have something else in mind.
                "BREAKER": None,
            }
        }
        yield made
