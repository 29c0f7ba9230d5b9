"""Fixtures and a marker for pytest; loaded in every project where the package is installed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from signal_dispatch.mocking import EndpointMock
    from signal_dispatch.testing import Deliveries

_MARKER = "signal_dispatch_network"


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers", f"{_MARKER}: let signal_dispatch send as in production, to real endpoints"
    )


@pytest.fixture
def deliveries() -> "Deliveries":
    """Return what is in the outbox; ``send()`` sends it. The test needs ``db`` beside it."""
    _refuse_without_app()
    from signal_dispatch.testing import Deliveries

    return Deliveries()


@pytest.fixture
def mock_endpoint() -> "Iterator[Callable[[str], EndpointMock]]":
    """Mock endpoints by their alias until the test ends; asked again, give the same mock."""
    _refuse_without_app()
    from signal_dispatch import testing

    mocks: dict[str, EndpointMock] = {}
    with ExitStack() as stack:

        def mock(alias: str) -> "EndpointMock":
            if alias not in mocks:
                mocks[alias] = stack.enter_context(testing.mock_endpoint(alias))
            return mocks[alias]

        yield mock


@pytest.fixture(autouse=True)
def _signal_dispatch(request: pytest.FixtureRequest) -> Iterator[None]:
    """Lift the guard where the marker says so, and end what still runs after the test."""
    if "signal_dispatch.backends" not in sys.modules:  # the app is not installed here
        yield
        return
    _set_up_database(request)
    from signal_dispatch.testing import real_network, stop

    with real_network() if request.node.get_closest_marker(_MARKER) else nullcontext():
        yield
    stop()


def _refuse_without_app() -> None:
    """Say what is missing, before Django says something else of our models."""
    from django.apps import apps

    if apps.ready and not apps.is_installed("signal_dispatch"):
        pytest.fail('Add "signal_dispatch" to INSTALLED_APPS: this test uses it.', pytrace=False)


def _set_up_database(request: pytest.FixtureRequest) -> None:
    """Set the database up now if the test has one, so that it is flushed after our clean-up.

    Fixtures end in the reverse of the order in which they began.
    """
    if not request.config.pluginmanager.hasplugin("django"):
        return
    names = set(request.fixturenames)
    if names & {"transactional_db", "live_server"}:
        request.getfixturevalue("transactional_db")
    elif "db" in names or request.node.get_closest_marker("django_db"):
        request.getfixturevalue("db")
