"""The call as a site makes it by hand, by the session of its thread."""

import os
import threading
from typing import Any

import requests

_of_this_thread = threading.local()


def post(payload: dict[str, Any]) -> None:
    """Tell the sink of a sale."""
    session = getattr(_of_this_thread, "session", None)
    if session is None:
        session = _of_this_thread.session = requests.Session()
    url = f"{os.environ['BENCH_SINK']}sales/{payload['number']}"
    session.post(url, json=payload, timeout=(3.05, 10)).raise_for_status()
