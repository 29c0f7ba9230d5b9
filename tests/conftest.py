"""Fixtures that every test module may use."""

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from signal_dispatch import ModelDispatch
from signal_dispatch.backends import backends
from signal_dispatch.registry import registry
from signal_dispatch.sessions import SessionCache
from tests import tenants
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


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Sign certificates for tests."""
    return trustme.CA()


@pytest.fixture(scope="session")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """Return what a server on 127.0.0.1, also called localhost and crm.example.com, needs."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost", "crm.example.com").configure_cert(context)
    return context


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    """Return the path of a file with the authority's certificate, for ``VERIFY``."""
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


@pytest.fixture
def sessions() -> Iterator[SessionCache]:
    """Keep the sessions of a test's own calls."""
    cache = SessionCache()
    yield cache
    cache.close()


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


@pytest.fixture
def tenant(receiver: Receiver, settings: Any) -> Iterator[Any]:
    """Play the remotes of tenants, too: ``tenant:42`` is at ``/42/`` of the receiver, and so on.

    Whoever the test gives no answer in ``tenant.answers`` is gone.
    """
    settings.SIGNAL_DISPATCH_ENDPOINTS["tenant"] = {
        "RESOLVER": tenants.PATH,
        "ALLOW_PRIVATE_ADDRESSES": True,
        "RETRY": {"delays": [0, 0.05, 0.05], "jitter": 0},
    }
    # Assigned anew, so that Django tells of the change.
    settings.SIGNAL_DISPATCH_ENDPOINTS = dict(settings.SIGNAL_DISPATCH_ENDPOINTS)
    tenants.url = receiver.url
    yield tenants
    tenants.forget()


@pytest.fixture
def person(client: Any) -> Callable[..., Any]:
    """Log somebody into the admin who may view deliveries, and do what else is named."""
    from django.contrib.auth.models import Permission, User

    def person(*names: str) -> Any:
        user, _made = User.objects.get_or_create(username="ann", is_staff=True)
        wanted = ["view_delivery", *names]
        user.user_permissions.set(Permission.objects.filter(codename__in=wanted))
        client.force_login(user)
        return client

    return person
