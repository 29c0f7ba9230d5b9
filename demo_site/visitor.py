"""Somebody who uses the shop's page as a browser does, and looks over the CRM's shoulder."""

import time
from typing import Any

import requests

from demo_site.servers import DemoFailed

TIMEOUT_SECONDS = 10


class Unreachable(DemoFailed):
    """A server doesn't answer at all."""


class Visitor:
    """A person at the page."""

    def __init__(self, shop_url: str, control_url: str) -> None:
        self._shop_url = shop_url
        self._control_url = control_url
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy stands between two ports of one machine

    def opens_page(self) -> bool:
        """Say whether the page is there; keeps its cookie for the forms."""
        try:
            self._ask("GET", self._shop_url)
        except Unreachable:
            return False
        return True

    def submit(self, path: str, **fields: str) -> float:
        """Post a form of the page and return the milliseconds until the shop answered."""
        fields["csrfmiddlewaretoken"] = self._session.cookies["csrftoken"]
        began = time.perf_counter()
        answer = self._ask("POST", self._shop_url + path, data=fields, allow_redirects=False)
        spent_ms = (time.perf_counter() - began) * 1000
        if answer.status_code != requests.codes.found:
            raise DemoFailed(f"The shop answered {answer.status_code} to {path}, not a redirect.")
        return spent_ms

    def order(self, number: str) -> dict[str, Any]:
        """Return an order as the shop's database has it, with its calls."""
        return dict(self._orders()[number])

    def newest_order(self) -> str:
        """Return the number of the order that was added last."""
        return str(next(iter(self._orders())))

    def held_by_crm(self, number: str) -> dict[str, Any] | None:
        """Return what the CRM holds of an order, with its id there; ``None`` if nothing."""
        orders: dict[str, dict[str, Any]] = self._ask("GET", self._control_url).json()["orders"]
        return orders.get(number)

    def _orders(self) -> dict[str, Any]:
        return dict(self._ask("GET", f"{self._shop_url}orders.json").json())

    def _ask(self, method: str, url: str, **options: Any) -> requests.Response:
        try:
            answer = self._session.request(method, url, timeout=TIMEOUT_SECONDS, **options)
            answer.raise_for_status()
        except requests.HTTPError as error:
            raise DemoFailed(f"{method} {url} was answered with {answer.status_code}.") from error
        except requests.RequestException as error:
            raise Unreachable(f"{method} {url} was not answered: {error}") from error
        finally:
            # A connection for each: the development server writes an answer in small pieces, and
            # on a kept one the second waits 40 ms for the first, which is not what a save costs.
            self._session.close()
        return answer
