"""Scripts that end in every way there is: what they committed is delivered, now or by the next."""

import os
import subprocess
import sys
import threading

import pytest

from signal_dispatch.models import Delivery
from tests.acceptance.serving import environment, serving
from tests.acceptance.site.settings import LEASE_SECONDS
from tests.run import ROOT
from tests.settings import DATABASE
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Another process can't see an in-memory database.",
    ),
]

PROLOGUE = """
import django
django.setup()
import atexit, os, signal, sys, threading
from django.db import connections, transaction
from tests.shop.models import Order

def save(count=5, prefix="o"):
    for number in range(count):
        Order.objects.create(number=f"{sys.argv[1]}-{prefix}-{number}")
"""

#: They end as Python does, so that the process sends before it is gone.
ORDERLY = {
    "end of the script": "save()",
    "sys.exit": "save(); sys.exit(0)",
    "an exception": "save(); raise SystemExit(0)",
    "a transaction": "with transaction.atomic(): save()",
    "a thread": """
def run():
    save()
    connections.close_all()
thread = threading.Thread(target=run); thread.start(); thread.join()""",
    "an exit handler": "save(prefix='first'); atexit.register(save)",
}
#: They end without Python's knowledge.
ABRUPT = {
    "os._exit": "save(); os._exit(0)",
    "os._exit by a commit hook": """
with transaction.atomic():
    save()
    transaction.on_commit(lambda: os._exit(0))""",
    "SIGTERM": "save(); os.kill(os.getpid(), signal.SIGTERM)",
    "a forked child": """
pid = os.fork()
if not pid:
    save()
    os._exit(0)
os.waitpid(pid, 0)""",
    "an exit handler that runs after ours": """
atexit.register(save)
save(1, prefix="first")""",
}


def start(receiver, name, source, tmp_path):
    return subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + source, name],
        cwd=ROOT,
        env=os.environ | environment(receiver.url, tmp_path / "notes"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def numbers(receiver):
    return sorted(request.json["number"] for request in receiver.requests)


def saved():
    return sorted(Order.objects.values_list("number", flat=True))


@pytest.mark.parametrize("how", ORDERLY)
def test_a_script_that_ends_as_python_does_has_sent_all(receiver, how, tmp_path):
    output, _none = start(receiver, how, ORDERLY[how], tmp_path).communicate(timeout=60)

    assert "Traceback" not in output
    assert numbers(receiver) == saved()
    assert len(saved()) >= 5
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}


def test_what_scripts_could_not_send_when_they_ended_the_next_process_does(receiver, tmp_path):
    ended = threading.Event()
    # Whoever ends before it is answered leaves its call behind, however slow the machine.
    receiver.script = lambda request: (receiver.hold(ended), (200, {}, b"{}"))[1]
    scripts = {how: start(receiver, how, source, tmp_path) for how, source in ABRUPT.items()}
    for how, process in scripts.items():
        output, _none = process.communicate(timeout=60)
        assert "Traceback" not in output, how
    ended.set()
    left = {
        Order.objects.get(pk=delivery.object_pk).number.split("-")[0]
        for delivery in Delivery.objects.unfinished()
    }
    assert left == set(ABRUPT), "each of them left something behind"
    assert {number.split("-")[0] for number in saved()} == set(ABRUPT)
    with serving("gunicorn gthread", receiver.url) as server:
        server.get("read/")
        eventually(lambda: not Delivery.objects.unfinished().exists(), 30 + LEASE_SECONDS)

    assert sorted(set(numbers(receiver))) == saved()
    assert set(Delivery.objects.values_list("state", flat=True)) == {"delivered"}
