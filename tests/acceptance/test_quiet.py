"""Processes of a site that have nothing to send: no thread, no statement, no connection."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from django.db import connection

from signal_dispatch.models import Delivery, EndpointMinute
from signal_dispatch.naps import MAX_SLEEP_SECONDS
from signal_dispatch.pruning import PASS_SECONDS
from signal_dispatch.sweeping import REPAIR_SECONDS
from tests.acceptance.serving import environment, serving
from tests.acceptance.site import notes
from tests.acceptance.soak import SOAKING, report, scaled
from tests.run import ROOT
from tests.settings import DATABASE
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Another process can't see an in-memory database.",
    ),
]

#: How long a bookkeeper that has nothing to do sleeps. In the short form a minute takes 2 s,
#: which is longer than a connection is kept.
IDLE_SECONDS = MAX_SLEEP_SECONDS if SOAKING else 2.0
#: How long it must be without a connection between two looks. One that is only changed for
#: another at each look is gone for milliseconds.
FREE_SECONDS = 0.3
BOOKKEEPER = "signal_dispatch-bookkeeper"


def sessions(server):
    """Count the connections that other processes have to the test's database, from outside."""
    if connection.vendor == "sqlite":
        return sum(map(open_files, server.pids))
    question = {
        "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
        "mysql": "SELECT count(*) FROM information_schema.processlist"
        " WHERE db = database() AND id <> connection_id()",
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(question)
        return cursor.fetchone()[0]


def open_files(pid):
    """Count the descriptors that a process holds on the database's files."""
    name = str(connection.settings_dict["NAME"])
    found = 0
    for link in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            found += str(link.readlink()).startswith(name)
        except OSError:  # it was closed meanwhile
            continue
    return found


def longest_time_without(server, *, until):
    """Return for how many seconds on end nobody was seen to have a connection, until then."""
    deadline = time.monotonic() + 10 * IDLE_SECONDS
    longest, last = 0.0, time.monotonic()
    while not until():
        assert time.monotonic() < deadline, "it does not look any more"
        if sessions(server):
            last = time.monotonic()
        longest = max(longest, time.monotonic() - last)
        time.sleep(0.02)
    return longest


def counted_attempts():
    return sum(EndpointMinute.objects.values_list("attempts", flat=True))


def started(server):
    return [line["name"] for line in server.noted("thread")]


@pytest.mark.parametrize("name", ["gunicorn", "uvicorn"])
def test_a_server_that_has_served_nothing_has_no_thread_and_no_connection(receiver, name):
    with serving(name, receiver.url) as server:
        workers = {"gunicorn": 2, "uvicorn": 1}[name]
        eventually(lambda: len(server.pids) == workers, 30)
        until = time.monotonic() + scaled(2, 60)
        eventually(lambda: sessions(server) or time.monotonic() > until, 90)

        assert time.monotonic() > until, "a connection was opened"
        assert not [thread for thread in started(server) if "signal_dispatch" in thread]
        assert server.noted("connection", "statement") == []
        server.terminate()
        assert "Traceback" not in server.end()


@pytest.mark.parametrize("name", ["gunicorn gthread", "uvicorn"])
@pytest.mark.parametrize("page", ["read/", "save/?n=5&prefix=o"])
def test_a_server_that_idles_looks_once_a_minute_and_keeps_no_connection(receiver, name, page):
    short = {} if SOAKING else {"SITE_IDLE": str(IDLE_SECONDS)}
    if name == "uvicorn":  # a site with tenants asks one query more at each look
        short["SITE_RESOLVER"] = "tests.shop.tenants.endpoint_of"
    with serving(name, receiver.url, options={"idle_seconds": 0.2}, **short) as server:
        pid = server.get(page)["pid"]
        eventually(lambda: not Delivery.objects.unfinished().exists(), 30)
        calls = 5 if page.startswith("save") else 0
        eventually(lambda: counted_attempts() == calls, 30)  # a little later than the records
        eventually(lambda: sessions(server) == 0, 30)
        began = time.monotonic()

        def mine(what):
            lines = server.noted(what)
            return [line for line in lines if line["pid"] == pid and line["at"] > began]

        def looks(*, at_tenants=False):
            ours = [line for line in mine("statement") if "signal_dispatch_" in line["sql"]]
            return [line for line in ours if line["sql"].startswith("WITH ") == at_tenants]

        free = longest_time_without(server, until=lambda: len(looks()) >= 3)
        assert free >= FREE_SECONDS
        seconds = time.monotonic() - began
        found, tenants, connections = looks(), looks(at_tenants=True), mine("connection")
        threads = {line["thread"] for line in [*found, *tenants, *connections]}
        assert threads == {BOOKKEEPER}, "nobody else touches the database"
        assert mine("thread") == [], "and nothing new is started"
        repairs = [line for line in found if "DISTINCT" in line["sql"]]
        # Once an hour it looks, after another look, for what is old.
        prunes = [line for line in found if "finished_at" in line["sql"].partition("WHERE")[2]]
        times = [line["at"] for line in found if line not in repairs + prunes]
        asked = sum("AS first_0" in line["sql"] for line in found)
        assert len(tenants) in ((asked - 1, asked) if name == "uvicorn" else (0,))
        assert min(b - a for a, b in pairwise(times)) >= 0.99 * IDLE_SECONDS
        assert len(repairs) <= seconds / REPAIR_SECONDS + 1
        assert len(prunes) <= 3 * (seconds / PASS_SECONDS + 1)
        assert len(connections) >= len(times), "each look opens a connection: none was kept"
        server.terminate()
        assert "Traceback" not in server.end()
    report(f"{name} idle, {DATABASE}", seconds=seconds, looks=len(times), repairs=len(repairs))


@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["shell", "-c", "print('here')"],
        ["migrate", "--verbosity", "0"],
        ["dispatch_list"],
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_saves_nothing_starts_no_thread(receiver, command, tmp_path):
    noted = tmp_path / "notes"
    done = subprocess.run(
        [sys.executable, "-m", "django", *command],
        cwd=ROOT,
        env=os.environ | environment(receiver.url, noted),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert len(notes.read(noted, "ready")) == 1
    assert notes.read(noted, "thread") == []
    # Django has questions of its own to the database, more of them in each version.
    told = notes.read(noted, "statement")
    assert not [line for line in told if "signal_dispatch_" in line["sql"]]
