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
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

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
        url, _line = address_in(process)
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
    with crm(secret) as (url, _control):
        answers = [
            requests.put(f"{url}orders/A-1", body, headers=headers, timeout=10)
            for headers in ({}, {**signed, "webhook-id": "other"}, signed)
        ]

    assert [answer.status_code for answer in answers] == [401, 401, 201]
    assert answers[0].json() == {"error": "The header webhook-id is missing."}


# The page, as a browser asks for it.


@dataclass
class Guest:
    """Somebody at the page of a running demo, logged in to nothing yet."""

    url: str
    told: str
    session: requests.Session = field(default_factory=requests.Session)

    def get(self, path: str = "") -> requests.Response:
        """Open a page."""
        answer = self.session.get(self.url + path, timeout=10)
        assert answer.status_code == 200, f"{path}: {answer.status_code}"
        return answer

    def post(self, path: str, **fields: str) -> requests.Response:
        """Send a form."""
        fields["csrfmiddlewaretoken"] = self.session.cookies["csrftoken"]
        return self.session.post(self.url + path, data=fields, timeout=10)

    def new_order(self) -> str:
        """Add an order and pay it."""
        self.post("orders/add/", email="ada@example.com", total="9.50")
        number = str(next(iter(self.get("orders.json").json())))
        self.post("orders/pay/", number=number)
        return number

    def call(self, number: str) -> dict[str, Any]:
        """Return the order's one call."""
        (call,) = self.get("orders.json").json()[number]["calls"]
        return dict(call)

    def texts(self, number: str) -> list[str]:
        """Return what the timeline of its call says."""
        return [re.sub(r" in \d+ ms$", "", each["text"]) for each in self.call(number)["timeline"]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Start one demo for the tests of its page; give its address and the line that tells it."""
    with demo(tmp_path_factory.mktemp("demo")) as process:
        yield address_in(process)


@pytest.fixture
def guest(played: tuple[str, str]) -> Iterator[Guest]:
    url, told = played
    guest = Guest(url, told)
    with guest.session:
        guest.get()
        yield guest
        guest.post("crm/", mode="healthy")


def test_the_page_runs_and_draws_only_files_of_its_own(guest: Guest) -> None:
    page = guest.get()
    policy = page.headers["Content-Security-Policy"]
    files = re.findall(r'(?:src|href)="/(static/[^"]+)"', page.text)

    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<style|<script(?! src)|\sstyle=|\son\w+=", page.text)
    assert {file.rpartition(".")[2] for file in files} == {"css", "js", "svg"}
    assert all(guest.get(file).content for file in files)


def test_what_changes_by_itself_comes_as_json(guest: Guest) -> None:
    answer = guest.get("live.json")
    parts = answer.json()
    shown = re.findall(r'data-part="(\w+)"', guest.get().text)

    assert "no-store" in answer.headers["Cache-Control"]
    assert set(parts) == set(shown) == {"switches", "orders", "crm"}
    assert "A-3" in parts["orders"]
    assert re.search(r'value="healthy"[^>]*aria-pressed="true"', parts["switches"])
    assert "PUT /orders/A-3 → 201" in parts["crm"]


def test_markup_in_an_order_is_shown_as_text(guest: Guest) -> None:
    guest.post("orders/add/", email='"<b>"@example.com', total="1")

    assert "<b>" not in guest.get("live.json").json()["orders"]
    assert "&lt;b&gt;" in guest.get("live.json").json()["orders"]


def test_the_timeline_tells_of_a_call_from_the_save_to_its_answer(guest: Guest) -> None:
    number = guest.new_order()
    eventually(lambda: guest.call(number)["state"] == "delivered", timeout=20)

    texts = ["recorded with the save", "attempt 1: 201", "delivered"]
    assert guest.texts(number) == texts
    moments = guest.call(number)["timeline"]
    times = [datetime.fromisoformat(moment["at"]) for moment in moments]
    assert times == sorted(times)
    assert all(text in guest.get("live.json").json()["orders"] for text in texts)


@pytest.mark.parametrize(("switch", "status"), [("500", 500), ("429", 429)])
def test_a_switch_makes_calls_fail_and_they_arrive_once_it_is_turned_back(
    guest: Guest, switch: str, status: int
) -> None:
    assert guest.post("crm/", mode=switch).status_code == 200
    pressed = rf'value="{switch}"[^>]*aria-pressed="true"'
    assert re.search(pressed, guest.get("live.json").json()["switches"])
    number = guest.new_order()
    eventually(lambda: guest.call(number)["last_status"] == status, timeout=20)
    assert f"attempt 1: {status}" in guest.texts(number)
    guest.post("crm/", mode="healthy")
    eventually(lambda: guest.call(number)["state"] == "delivered", timeout=30)

    attempts = guest.call(number)["attempts"]
    assert guest.texts(number)[-2:] == [f"attempt {attempts}: 201", "delivered"]


def test_a_switch_that_is_not_there_is_refused(guest: Guest) -> None:
    answer = guest.post("crm/", mode="broken")

    assert answer.status_code == 422
    assert answer.text == "'mode' must be one of healthy, slow, 500, 429, down."


def test_the_admin_is_open_to_the_user_that_is_told(guest: Guest) -> None:
    name, password = re.search(r"admin: (\S+) / (\S+)\)", guest.told).groups()  # type: ignore[union-attr]
    number = guest.new_order()
    order = guest.get("orders.json").json()[number]
    guest.get("admin/login/")
    guest.post("admin/login/", username=name, password=password, next="/admin/")
    pages = [path.removeprefix("/") for path in (order["admin"], order["calls"][0]["admin"])]
    linked = re.findall(r'href="/((?:admin|dispatch)/[^"]*)"', guest.get().text)

    assert set(pages) <= set(linked)
    assert len(set(linked) - set(pages)) > 4
    for path in {*pages, *linked}:
        opened = guest.get(path)
        assert "/admin/login/" not in opened.url
        assert "Content-Security-Policy" in opened.headers
    assert number in guest.get(pages[1]).text


def test_the_health_of_the_calls_is_told(guest: Guest) -> None:
    assert guest.get("dispatch/health/").json()["healthy"]


def test_the_crm_asks_to_come_back_later_when_it_is_told_to() -> None:
    with crm("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw") as (url, control):
        busy = {"mode": "fail", "status": 429, "retry_after": 5}
        assert requests.post(control, json=busy, timeout=10).json()["status"] == 429
        answer = requests.put(f"{url}orders/A-1", b"{}", timeout=10)
        refused = requests.post(control, json={"mode": "fail", "retry_after": 61}, timeout=10)

    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
    assert refused.status_code == 400


@contextmanager
def crm(secret: str) -> Iterator[tuple[str, str]]:
    """Start the CRM alone; yield its address and that of its switches when it listens."""
    api, control = free_ports(0, 0)
    process = subprocess.Popen(
        [sys.executable, "-m", "demo_site.crm", "--port", str(api), "--control-port", str(control)],
        cwd=ROOT,
        env={**os.environ, "CRM_SECRET": secret},
    )

    def listens() -> bool:
        # The switches' port is opened last.
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", control)) == 0

    with process:
        try:
            eventually(listens, timeout=LIMIT_SECONDS)
            yield f"http://127.0.0.1:{api}/", f"http://127.0.0.1:{control}/"
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


def address_in(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Read what is told until the page's address comes; return that and its line."""
    told = []
    for line in process.stdout or ():
        told.append(line)
        if found := re.match(r"Now yours: (\S+)", line):
            return found[1], line
    raise AssertionError("".join(told))
