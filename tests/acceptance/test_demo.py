"""The demo, as somebody who has just cloned the project plays it."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from demo_site.servers import free_ports
from signal_dispatch.signing import sign
from tests.run import ROOT
from tests.waiting import eventually

# Longer than all of the tour's own deadlines that a healthy run comes near.
LIMIT_SECONDS = 120

pytestmark = pytest.mark.skipif(
    os.environ.get("DATABASE", "sqlite") != "sqlite", reason="The demo brings its own SQLite."
)


def test_tour_shows_the_call_the_answer_and_the_recovery(tmp_path: Path) -> None:
    with demo(tmp_path, TOUR="1") as process:
        told, _ = process.communicate()

    assert process.returncode == 0, told
    assert re.search(r"The call arrived [\d.]+ s later: the CRM holds A-1 as c-1\.", told)
    assert "Order.crm_id of A-1 is c-1." in told
    assert "waits in the outbox: 127.0.0.1:" in told
    assert re.search(r"up again\.\n   The call arrived [\d.]+ s later: the CRM holds A-3", told)
    assert told.endswith("All as told.\n")


def test_after_the_tour_the_page_is_served_until_ctrl_c(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        url = address_in(process)
        page = requests.get(url, timeout=10)
        admin = requests.get(f"{url}admin/", timeout=10)
        process.send_signal(signal.SIGINT)
        code = process.wait()

    assert code == 0
    assert page.status_code == 200
    assert "A-3" in page.text
    assert admin.status_code == 200
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=10)


def test_the_crm_takes_only_what_bears_its_signature() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"status": "paid"}'
    signed = sign([secret], id="A-1", timestamp=int(time.time()), body=body)
    with crm(secret) as url:
        answers = [
            requests.put(f"{url}orders/A-1", body, headers=headers, timeout=10)
            for headers in ({}, {**signed, "webhook-id": "other"}, signed)
        ]

    assert [answer.status_code for answer in answers] == [401, 401, 201]
    assert answers[0].json() == {"error": "The header webhook-id is missing."}


@contextmanager
def crm(secret: str) -> Iterator[str]:
    """Start the CRM alone; yield its address when it listens."""
    api, control = free_ports(0, 0)
    process = subprocess.Popen(
        [sys.executable, "-m", "demo_site.crm", "--port", str(api), "--control-port", str(control)],
        cwd=ROOT,
        env={**os.environ, "CRM_SECRET": secret},
    )

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", api)) == 0

    with process:
        try:
            eventually(listens, timeout=LIMIT_SECONDS)
            yield f"http://127.0.0.1:{api}/"
        finally:
            process.terminate()


@contextmanager
def demo(var: Path, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Start the tour on free ports; kill it if it outlasts the limit, or the test fails."""
    process = subprocess.Popen(
        [sys.executable, "-m", "demo_site.tour"],
        cwd=ROOT,
        env={
            **os.environ,
            "TOUR": "",
            "SHOP_PORT": "0",
            "CRM_PORT": "0",
            "DEMO_VAR": str(var),
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # SIGTERM, so that it ends its own processes first.
    timer = threading.Timer(LIMIT_SECONDS, process.terminate)
    timer.start()
    with process:
        try:
            yield process
        finally:
            timer.cancel()
            process.terminate()


def address_in(process: subprocess.Popen[str]) -> str:
    """Read what is told until the page's address comes."""
    told = []
    for line in process.stdout or ():
        told.append(line)
        if found := re.match(r"Now yours: (\S+)", line):
            return found[1]
    raise AssertionError("".join(told))
