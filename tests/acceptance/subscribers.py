"""The RESOLVER of processes under test: looks subscriptions up, and hangs where they say so.

Read from the environment: ``KEEP_FAILURE_SECONDS``, in place of the package's. Nobody waits for
longer than twice as long then.
"""

import os
import time
from typing import Any

from signal_dispatch import resolved
from tests.shop import tenants

if "KEEP_FAILURE_SECONDS" in os.environ:
    resolved.KEEP_FAILURE_SECONDS = float(os.environ["KEEP_FAILURE_SECONDS"])
    resolved.MAX_WAIT_SECONDS = 2 * resolved.KEEP_FAILURE_SECONDS

#: The token of a subscription that nobody ever finds, and how long the search for it takes.
LOST = "lost"
LOST_SECONDS = 60.0


def endpoint_of(key: str) -> dict[str, Any]:
    """Return the endpoint of a subscription, as its customer wants it."""
    found = tenants.endpoint_of(key)
    if found["HEADERS"]["Authorization"] == f"Bearer {LOST}":
        time.sleep(LOST_SECONDS)
    return found
