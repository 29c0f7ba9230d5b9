"""Check what an endpoint lets out to whoever is on the way, and whom it lets in."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from django.core.checks import CheckMessage

from signal_dispatch.addresses import is_public
from signal_dispatch.checks.problems import Problem, where
from signal_dispatch.declarations import ModelDispatch
from signal_dispatch.endpoints import endpoints
from signal_dispatch.entries import SETTING, Endpoint
from signal_dispatch.redacting import is_named
from signal_dispatch.resolving import literal

_PORTS = {"http": 80, "https": 443}
# Names that lead nowhere outside: RFC 2606, 6761, 6762, 7686 and 8375, and ICANN's of 2024.
_NEAR: Final = (
    ".example",
    ".home.arpa",
    ".internal",
    ".invalid",
    ".local",
    ".localhost",
    ".onion",
    ".test",
)


def check_exposure(endpoint: Endpoint, path: str) -> Iterator[CheckMessage]:
    """See what can be read on the way, and that the guard of addresses lets the URL pass."""
    if urlsplit(endpoint.url).scheme == "http" and _is_far(endpoint):
        yield Problem.HTTP_TO_PUBLIC.message(
            f'{path}["URL"] is plain http to a public host: whoever is on the way can read, and '
            "change, what is sent, credentials and all.",
            hint=f"Write https. If the host is in a network of your own, silence "
            f"{Problem.HTTP_TO_PUBLIC.id}.",
        )
    if not endpoint.allow_private_addresses:
        yield from _check_guarded(endpoint, path)
    elif endpoint.ports != Endpoint.ports:
        yield Problem.PORTS_UNUSED.message(
            f'{path}["PORTS"] does nothing while ALLOW_PRIVATE_ADDRESSES is True.',
            hint="Set ALLOW_PRIVATE_ADDRESSES to False, or take PORTS out.",
        )


def check_redacted_id(dispatch: ModelDispatch[Any]) -> Iterator[CheckMessage]:
    """See that the id which is read from answers is not masked in those that are kept."""
    alias: Any = dispatch.endpoint
    path: Any = dispatch.remote_id
    endpoint = endpoints.find(alias) if isinstance(alias, str) else None
    if endpoint is None or not isinstance(path, str) or dispatch.overrides("get_endpoint"):
        return
    for name in path.split("."):
        if is_named(name, endpoint.redact):
            yield Problem.REMOTE_ID_REDACTED.message(
                f"{where(dispatch, 'remote_id')} reads {name!r}, which {SETTING}"
                f'["{endpoint.alias}"]["REDACT"] masks: an answer that is kept and handled '
                "again would give the mask for the id.",
                hint="Take the name out of REDACT, or read the id with get_remote_id() from "
                "something else.",
            )


def _check_guarded(endpoint: Endpoint, path: str) -> Iterator[CheckMessage]:
    host, port = _host_and_port(endpoint)
    if endpoint.url and port not in endpoint.ports:
        yield Problem.PORT_REFUSED.message(
            f'{path}["URL"] has the port {port}, which PORTS does not allow: every delivery would '
            "fail.",
            hint=f'Add it: {path}["PORTS"] = {[*endpoint.ports, port]}.',
        )
    if not all(is_public(sockaddr[0]) for _, sockaddr in literal(host, port)):
        yield Problem.ADDRESS_REFUSED.message(
            f'{path}["URL"] is an address that is not public, and ALLOW_PRIVATE_ADDRESSES is '
            "False: every delivery would fail.",
            hint=f'Set {path}["ALLOW_PRIVATE_ADDRESSES"] = True if the URL is your own choice, or '
            "write a public address.",
        )
    if endpoint.proxies:
        yield Problem.GUARD_BEHIND_PROXY.message(
            f'{path}["PROXIES"] makes the proxy look names up, so ALLOW_PRIVATE_ADDRESSES = False '
            "can't see where they lead: it judges ports, and addresses that stand in the URL.",
            hint="Let the proxy refuse private addresses, and then silence "
            f"{Problem.GUARD_BEHIND_PROXY.id}.",
        )


def _is_far(endpoint: Endpoint) -> bool:
    host, port = _host_and_port(endpoint)
    addresses = literal(host, port)
    if addresses:
        return all(is_public(sockaddr[0]) for _, sockaddr in addresses)
    name = host.rstrip(".")
    return "." in name and not name.endswith(_NEAR)


def _host_and_port(endpoint: Endpoint) -> tuple[str, int]:
    parts = urlsplit(endpoint.url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
