"""Test what a site dispatches: without network, without threads, without waiting."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any
from unittest import TestCase
from uuid import UUID

import requests
from requests.adapters import HTTPAdapter

from signal_dispatch.backends import backends
from signal_dispatch.deliveries import Deliveries, is_anything_due, uncommitted_aliases
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import Endpoint
from signal_dispatch.exceptions import EndpointNotMocked
from signal_dispatch.models import Delivery
from signal_dispatch.signals import delivery_enqueued

if TYPE_CHECKING:
    from signal_dispatch.mocking import EndpointMock

    _Mixed = TestCase
else:
    _Mixed = object

__all__ = [
    "Deliveries",
    "DispatchTestMixin",
    "drain",
    "mock_endpoint",
    "real_network",
    "recorded",
]

_NOT_COMMITTED = (
    "drain() waits for what is committed, and nothing is in a test case's own transaction: it is "
    "for tests with real commits, which are those of TransactionTestCase or "
    "@pytest.mark.django_db(transaction=True). Here call deliveries.send() instead: of the fixture "
    "deliveries, or self.deliveries.send() with signal_dispatch.testing.DispatchTestMixin."
)

# The active mocks of each endpoint; the last one answers.
_mocks: dict[str, list["EndpointMock"]] = {}


class DispatchTestMixin(_Mixed):
    """Give ``self.deliveries`` and ``self.mock_endpoint()`` to a test case of Django's."""

    @property
    def deliveries(self) -> Deliveries:
        """Return the deliveries that are in the outbox now."""
        return Deliveries()

    def mock_endpoint(self, alias: str) -> "EndpointMock":
        """Mock an endpoint until the test ends; asked again, return the same mock."""
        mocks: dict[str, EndpointMock] = self.__dict__.setdefault("_endpoint_mocks", {})
        if alias not in mocks:
            # Cleanups run before Django takes the database back.
            mocks[alias] = self.enterContext(mock_endpoint(alias))
        return mocks[alias]


@contextmanager
def mock_endpoint(alias: str) -> Iterator["EndpointMock"]:
    """Answer the calls to an endpoint from replies, and let committed deliveries be sent.

    One of an entry with a RESOLVER is named with its key, as "tenant:42"; the RESOLVER is asked
    as in production. Raises ``UnknownEndpoint`` for an alias that settings do not have, and at the
    end what a sending thread met.
    """
    mock = _new_mock(replace(endpoints[alias], alias=alias))
    active = _mocks.setdefault(alias, [])
    active.append(mock)
    backends.released += 1
    try:
        with _stopping():
            yield mock
    finally:
        backends.released -= 1
        active.remove(mock)


@contextmanager
def real_network() -> Iterator[None]:
    """Let everything be as in production: threads, hooks, and calls to real endpoints.

    Raises at the end what a sending thread met.
    """
    stop()  # What was begun with a mock must not go on without it.
    backends.live += 1
    try:
        with _stopping():
            yield
    finally:
        backends.live -= 1


@contextmanager
def recorded() -> Iterator[Deliveries]:
    """Collect the deliveries that are recorded inside of the block."""
    uids: set[UUID] = set()

    def note(delivery: Delivery, **kwargs: Any) -> None:
        uids.add(delivery.uid)

    delivery_enqueued.connect(note, weak=False)
    try:
        yield Deliveries(uids)
    finally:
        delivery_enqueued.disconnect(note)


def drain(timeout: float = 10.0) -> None:
    """Wait until nothing is in flight or due, then end all threads and their connections.

    Raises ``TimeoutError`` after so many seconds, or what a thread met. In a test case's own
    transaction it raises at once if something is due there: no thread sees what is not committed.
    """
    until = monotonic() + timeout
    try:
        if not backends.wants_hints:
            return  # Without a mock nothing was begun, and what is due stays there.
        if uncommitted := uncommitted_aliases():
            if is_anything_due(uncommitted):
                raise TimeoutError(_NOT_COMMITTED)
            return  # Threads would see nothing there, or be locked out.
        for backend in backends.made():
            backend.drain(max(0.0, until - monotonic()))
    finally:
        stop()


def stop() -> None:
    """End all threads and their connections; raises what a thread met."""
    met = _stop()
    if met:
        raise met[0]


def stand_in(endpoint: Endpoint, session: requests.Session) -> None:
    """Turn a session that is about to call away from the network. Raises ``EndpointNotMocked``."""
    active = _mocks.get(endpoint.alias)
    if not active and _answered_by_responses(endpoint):
        return
    if not active:
        alias = f'mock_endpoint("{endpoint.alias}")'
        raise EndpointNotMocked(
            f"Endpoint {endpoint.alias!r} would be called in a test that does not mock it. "
            f"With pytest take the fixture mock_endpoint and say {alias}.reply(200); elsewhere "
            f"say 'with signal_dispatch.testing.{alias} as mock: mock.reply(200)'. "
            f"The marker signal_dispatch_network lets a test call the real one."
        )
    active[-1].take_over(endpoint, session)


def _answered_by_responses(endpoint: Endpoint) -> bool:
    """Say whether the test itself mocks the endpoint's URL with ``responses``, and it is active."""
    library = sys.modules.get("responses")
    # While it is active this method of requests is the library's own.
    if library is None or HTTPAdapter.send.__module__ != library.__name__:
        return False
    if not endpoint.url:  # whatever it calls, nobody can tell that it is mocked
        return False
    base = endpoint.url.rstrip("/")
    return any(
        response.url.startswith(base) if isinstance(response.url, str) else True
        for response in library.registered()
    )


def _new_mock(endpoint: Endpoint) -> "EndpointMock":
    try:
        from signal_dispatch.mocking import EndpointMock
    except ModuleNotFoundError as error:
        if error.name != "responses":
            raise
        raise ModuleNotFoundError(
            "mock_endpoint() needs the library responses: "
            "install it, or django-signal-dispatch[testing].",
            name=error.name,
        ) from error
    return EndpointMock(endpoint)


@contextmanager
def _stopping() -> Iterator[None]:
    """Stop the backends at the end: what they have in hand may be allowed no more."""
    try:
        yield
    except BaseException as error:
        for met in _stop():
            error.add_note(f"Besides, a sending thread met {met!r}")
        raise
    stop()


def _stop() -> list[Exception]:
    endpoints.forget()  # what RESOLVERs answered for objects of this test
    met = []
    for backend in backends.made():
        try:
            backend.stop()
        except Exception as error:  # noqa: BLE001 - handed to the caller
            met.append(error)
    return met
