"""The site under real servers: what arrives, how they end, and what the next process takes over."""

import os
import re
import threading

import pytest

from signal_dispatch.models import Delivery
from tests.acceptance import serving as servers
from tests.acceptance.process import run
from tests.acceptance.serving import serving
from tests.acceptance.soak import SOAKING, patience, report, scaled
from tests.services import required
from tests.settings import DATABASE
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Another process can't see an in-memory database.",
    ),
]

#: Seconds that a process may send on when it ends, where the remote hangs.
DRAIN_SECONDS = 0.5

#: Servers that end a process as Python does, so that it sends on for a while, and those that do
#: not, or (uWSGI, which leaves out exit handlers while a worker has a request) not always: what
#: they leave is taken over when its lease is over.
DRAINING = [
    "gunicorn",
    "gunicorn --preload",
    "gunicorn gthread",
    "gunicorn gevent",
    "gunicorn gevent --preload",
    "daphne",
]
DYING = [
    "uvicorn",
    "uvicorn --workers 2",
    "uwsgi --enable-threads",
    "uwsgi --enable-threads --lazy-apps",
    "runserver",
    "runserver --noreload",
]
#: Servers that load the site before they fork.
PRELOADING = ["gunicorn --preload", "uwsgi --enable-threads"]

if DATABASE != "postgres" and not SOAKING:
    # Which database it is makes little difference to a server: one sees them all.
    DRAINING = ["gunicorn gthread", "gunicorn gevent"]
    DYING = ["uvicorn", "uwsgi --enable-threads"]
    PRELOADING = PRELOADING[1:]


@pytest.fixture(autouse=True)
def installed(request):
    """Leave a test out whose server is not installed, unless all of them are required."""
    if "uwsgi" in request.node.name and servers.uwsgi() is None:
        assert not required(), "uWSGI is not installed: pip install '.[servers]'"
        pytest.skip("left out: uWSGI is not installed (pip install '.[servers]')")


def numbers(receiver):
    return {request.json["number"] for request in receiver.requests}


def all_delivered():
    return not Delivery.objects.exclude(state="delivered").exists()


def one_key_each(receiver):
    """Say whether each order's calls, repeated or not, had one ``Idempotency-Key``."""
    pairs = {(r.json["number"], r.headers["Idempotency-Key"]) for r in receiver.requests}
    return len(pairs) == len(numbers(receiver))


@pytest.mark.parametrize("name", DRAINING)
def test_a_server_that_is_told_to_end_sends_what_it_has_in_hand(receiver, name):
    receiver.script = lambda request: (receiver.wait(0.02), (200, {}, b"{}"))[1]
    with serving(name, receiver.url, options={"drain_seconds": 30}) as server:
        server.get("save/?n=60&prefix=o")
        server.terminate()
        output = server.end()

    assert "Traceback" not in output
    assert len(receiver.requests) == len(numbers(receiver)) == 60
    assert all_delivered()


@pytest.mark.parametrize("name", [*DRAINING, *DYING])
def test_what_a_server_leaves_behind_the_next_one_delivers(receiver, name):
    calls = scaled(100, 1000)
    gate = threading.Event()

    def answer(request):
        if len(receiver.requests) > calls // 5:
            receiver.hold(gate)
        return 200, {}, b"{}"

    receiver.script = answer
    options = {"drain_seconds": DRAIN_SECONDS}
    with serving(name, receiver.url, options=options) as server:
        server.get(f"save/?n={calls}&prefix=o")
        receiver.wait_for(calls // 5 + 1)
        server.terminate()
        output = server.end()
    assert "Traceback" not in output
    left = Delivery.objects.unfinished().count()
    assert left > calls // 2, "the remote hung, and nobody waited for it"
    gate.set()
    with serving(name, receiver.url, options=options) as server:
        server.get("read/")
        eventually(all_delivered, patience(60))
        server.terminate()
        output = server.end()

    assert "Traceback" not in output
    assert len(numbers(receiver)) == Delivery.objects.count() == calls
    assert one_key_each(receiver)
    doubled = len(receiver.requests) - calls
    lost = calls - len(numbers(receiver))
    report(f"{name} told to end, {DATABASE}", calls=calls, left=left, doubled=doubled, lost=lost)


@pytest.mark.parametrize("name", PRELOADING)
def test_workers_of_a_process_that_saved_before_it_forked_send(receiver, name):
    with serving(name, receiver.url, SITE_SAVES_AT_START="1") as server:
        pids = {server.get(f"save/?n=5&prefix=o{number}")["pid"] for number in range(4)}
        eventually(all_delivered, 30)
        server.terminate()
        output = server.end()

    assert server.process.pid not in pids
    assert "Traceback" not in output
    assert len(receiver.requests) == len(numbers(receiver)) == 21


@pytest.mark.django_db(transaction=True, databases=["default", "other"])  # a worker looks at both
def test_uwsgi_without_threads_says_so_and_leaves_the_rows_to_a_worker(receiver):
    with serving("uwsgi", receiver.url) as server:
        server.get("save/?n=20&prefix=o")
        server.get("read/")
        assert set(Delivery.objects.values_list("held_by", "state")) == {("", "pending")}
        server.terminate()
        output = server.end()
    warned = re.findall(r"process (\d+) sends nothing: start uWSGI with --enable-threads", output)
    assert warned
    assert len(set(warned)) == len(warned), "once in each process"
    assert receiver.requests == []
    assert server.noted("thread") == []
    run(receiver.url, "dispatch_worker", "--once")

    assert len(receiver.requests) == len(numbers(receiver)) == 20
    assert all_delivered()


def test_runserver_reloads_with_calls_pending_and_loses_none(receiver, tmp_path):
    (tmp_path / "touched_by_test.py").write_text("")
    path = f"{tmp_path}{os.pathsep}{servers.ROOT}"
    receiver.script = lambda request: (receiver.wait(0.1), (200, {}, b"{}"))[1]
    options = {"drain_seconds": DRAIN_SECONDS}
    more = {"PYTHONPATH": path, "SITE_TOUCHED": "touched_by_test"}
    with serving("runserver", receiver.url, options=options, **more) as server:
        before = server.get("save/?n=100&prefix=o")["pid"]
        known = server.pids
        (tmp_path / "touched_by_test.py").write_text("CHANGED = True\n")
        # Not asked before: a runserver that ends still accepts what it can't serve any more.
        eventually(lambda: server.pids - known, 40)
        assert server.get("read/")["pid"] != before
        eventually(all_delivered, 40)
        assert "Traceback" not in server.output

    assert len(numbers(receiver)) == 100
    assert one_key_each(receiver)
