"""The switches of the demo's CRM: what it holds and how it behaves. No part of the calls."""

from typing import Any

import requests
from django.conf import settings

TIMEOUT_SECONDS = 2


class CRMUnreachable(Exception):
    """The CRM's control port doesn't answer."""


def state() -> dict[str, Any] | None:
    """Return the CRM's mode, orders and last calls; ``None`` if it doesn't run."""
    try:
        return _ask("GET")
    except CRMUnreachable:
        return None


def switch(mode: str) -> None:
    """Make the CRM healthy, slow, fail or down. Raises ``CRMUnreachable``."""
    _ask("POST", {"mode": mode})


def _ask(method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    try:
        with requests.Session() as session:
            session.trust_env = False  # no proxy stands between two ports of one machine
            response = session.request(
                method, settings.CRM_CONTROL_URL, json=body, timeout=TIMEOUT_SECONDS
            )
            response.raise_for_status()
            return dict(response.json())
    except requests.RequestException as error:
        raise CRMUnreachable(f"The CRM at {settings.CRM_CONTROL_URL} did not obey.") from error
