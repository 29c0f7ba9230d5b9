"""The switches of the demo's CRM: what it holds and how it behaves. No part of the calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
from django.conf import settings

TIMEOUT_SECONDS = 2


@dataclass(frozen=True)
class Switch:
    """A behaviour of the CRM that somebody can choose: what is sent to it, and what it does."""

    name: str
    meaning: str
    behaviour: Mapping[str, Any] = field(default_factory=dict)

    def is_on(self, state: Mapping[str, Any] | None) -> bool:
        """Say whether the CRM behaves so."""
        return state is not None and self.behaviour.items() <= state.items()


SWITCHES = {
    switch.name: switch
    for switch in (
        Switch("healthy", "answers at once", {"mode": "healthy"}),
        Switch("slow", "takes 3 s", {"mode": "slow", "seconds": 3}),
        Switch("500", "answers with an error", {"mode": "fail", "status": 500}),
        Switch(
            "429",
            "asks to come back after 5 s",
            {"mode": "fail", "status": 429, "retry_after": 5},
        ),
        Switch("down", "refuses connections", {"mode": "down"}),
    )
}


class CRMUnreachable(Exception):
    """The CRM's control port doesn't answer."""


def state() -> dict[str, Any] | None:
    """Return the CRM's mode, orders and last calls; ``None`` if it doesn't run."""
    try:
        return _ask("GET")
    except CRMUnreachable:
        return None


def turn(switch: Switch) -> None:
    """Make the CRM behave so. Raises ``CRMUnreachable``."""
    _ask("POST", switch.behaviour)


def _ask(method: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
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
