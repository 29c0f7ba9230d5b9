"""Start shop and CRM, play a short tour in the terminal, then serve until Ctrl-C.

``python -m demo_site.tour``; with ``TOUR=1`` it ends after the tour, with exit code 0 if all went
as told. ``SHOP_PORT`` and ``CRM_PORT`` choose the ports, ``DEMO_VAR`` the directory of the data.
"""

import os
import signal
import sys
import time
from types import FrameType

from demo_site import settings
from demo_site.servers import DEMO_USER, DemoFailed, Servers, running
from demo_site.visitor import Visitor

# A save that waited for the CRM would take longer; a busy machine needs far less.
INSTANT_MS = 1000


class Tour:
    """What is played and told; raises ``DemoFailed`` where it goes otherwise."""

    def __init__(self, servers: Servers) -> None:
        self.servers = servers
        self.visitor = Visitor(servers.shop_url, servers.control_url)

    def play(self) -> None:
        """Play all of it."""
        self.servers.wait_until("the shop's page opens", self.visitor.opens_page)
        say(f"Shop on {self.servers.shop_url}, CRM on {self.servers.crm_url}.")
        self.save_and_the_call_follows()
        self.slow_remote()
        self.dead_remote()

    def save_and_the_call_follows(self) -> None:
        """Save, see the call arrive, see the answer in the shop's database."""
        say("\n1. Save, and the call follows")
        number = self.add()
        if self.visitor.order(number)["calls"]:
            raise DemoFailed(f"A call was recorded for {number}, which is a draft.")
        say(f"   Order {number} is added. It is a draft, so nobody is told.")
        paid_at = self.pay(number)
        self.arrives(number, paid_at)

    def slow_remote(self) -> None:
        """Save while the CRM takes its time."""
        say("\n2. The CRM takes 3 seconds for an answer")
        number = self.add()
        self.visitor.submit("crm/", mode="slow")
        paid_at = self.pay(number)
        self.arrives(number, paid_at)
        self.visitor.submit("crm/", mode="healthy")

    def dead_remote(self) -> None:
        """Save while the CRM is down, and see the call arrive once it is up."""
        say("\n3. The CRM is down")
        number = self.add()
        self.visitor.submit("crm/", mode="down")
        self.pay(number)
        reason = self.servers.wait_until(
            f"the call for {number} is tried in vain", lambda: self.reason(number)
        )
        say(f"   The call was tried, and waits in the outbox: {reason}")
        self.visitor.submit("crm/", mode="healthy")
        up_at = time.monotonic()
        say("   The CRM is up again.")
        self.arrives(number, up_at)

    def add(self) -> str:
        """Add an order by the form and return its number."""
        self.visitor.submit("orders/add/", email="ada@example.com", total="12.50")
        return self.visitor.newest_order()

    def pay(self, number: str) -> float:
        """Pay an order by its button, at once; return when it was pressed."""
        pressed_at = time.monotonic()
        spent_ms = self.visitor.submit("orders/pay/", number=number)
        say(f"   Order {number} is paid. The shop answered in {spent_ms:.0f} ms.")
        if spent_ms > INSTANT_MS:
            raise DemoFailed(f"A save must not wait for the CRM, and took {spent_ms:.0f} ms.")
        return pressed_at

    def arrives(self, number: str, since: float) -> None:
        """Wait until the CRM holds the order as paid and the shop has its id."""
        held = self.servers.wait_until(
            f"the call for {number} arrives", lambda: self.visitor.held_by_crm(number)
        )
        seconds = time.monotonic() - since
        if held["status"] != "paid":
            raise DemoFailed(f"The CRM holds {number} as {held['status']}, not as paid.")
        say(f"   The call arrived {seconds:.2f} s later: the CRM holds {number} as {held['id']}.")
        self.servers.wait_until(
            f"the answer for {number} is stored in the shop",
            lambda: self.visitor.order(number)["crm_id"] == held["id"],
        )
        say(f"   The answer is stored: Order.crm_id of {number} is {held['id']}.")

    def reason(self, number: str) -> str | None:
        """Return why the order's call still waits, once it was tried."""
        calls = self.visitor.order(number)["calls"]
        return calls[0]["reason"] if calls and calls[0]["attempts"] else None


def say(text: str) -> None:
    """Print for the person at the terminal, also through a pipe."""
    print(text, flush=True)  # noqa: T201 - a program for the terminal


def main() -> int:
    """Return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    # Whoever is started in a script's background inherits that Ctrl-C is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    only_tour = os.environ.get("TOUR", "") not in ("", "0")
    try:
        with running() as servers:
            Tour(servers).play()
            if not only_tour:
                serve(servers)
    except DemoFailed as error:
        say(f"\nThe demo failed. {error}")
        say(f"What shop and CRM printed stands in {settings.VAR_DIR}.")
        return 1
    except KeyboardInterrupt:
        say("\nThe demo was interrupted.")
        return 130
    say("\nAll as told.")
    return 0


def serve(servers: Servers) -> None:
    """Keep the servers until Ctrl-C."""
    say(f"\nNow yours: {servers.shop_url} (admin: {DEMO_USER} / {DEMO_USER}). Ctrl-C ends it.")
    try:
        while True:
            servers.require_alive()
            time.sleep(1)
    except KeyboardInterrupt:
        say("")


def _leave(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that the processes are ended on the way."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
