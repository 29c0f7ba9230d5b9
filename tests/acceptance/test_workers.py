"""Worker processes: several at once, told to stop, without a database, and seen from outside."""

import json
import signal
import threading
from contextlib import contextmanager

import pytest

from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.heartbeats import DEAD_SECONDS, FORGET_SECONDS
from signal_dispatch.models import Attempt, Delivery, WorkerProcess
from signal_dispatch.status import status_of
from tests.acceptance.process import start
from tests.acceptance.soak import patience, report, scaled
from tests.acceptance.wire import Wire
from tests.deliveries import delivery
from tests.services import MARIADB, POSTGRES
from tests.settings import DATABASE
from tests.waiting import eventually

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        DATABASE == "sqlite-memory",
        reason="Another process can't see an in-memory database.",
    ),
]

behind_a_wire = pytest.mark.skipif(
    DATABASE not in ("postgres", "mariadb"), reason="A file has no server that could be gone."
)


@contextmanager
def workers(url, count, *arguments, **environment):
    """Start worker processes, and end what is left of them."""
    running = [start(url, "dispatch_worker", *arguments, **environment) for _ in range(count)]
    try:
        yield running
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
            process.communicate(timeout=10)


def ended(process, timeout=60):
    """Wait for the end, and return the exit code and what was printed."""
    output, _none = process.communicate(timeout=timeout)
    return process.returncode, output


def living(count):
    return eventually(lambda: WorkerProcess.objects.count() == count, 30)


def status(url, *arguments):
    """Return the exit code of ``dispatch_status``, and what it says."""
    arguments = ("--json", "--database", "default", *arguments)
    code, output = ended(start(url, "dispatch_status", *arguments))
    return code, json.loads(output)["databases"]["default"]


def says(process, text):
    """Read what the process prints until a line holds the text."""
    lines = []
    for line in iter(process.stdout.readline, ""):
        lines.append(line)
        assert "Traceback" not in line
        if text in line:
            return
    raise AssertionError(f"It never said {text!r}: {''.join(lines)}")


def held():
    return Delivery.objects.exclude(held_by="")


def all_delivered():
    return not Delivery.objects.exclude(state="delivered").exists()


def test_several_workers_share_the_work_and_each_call_is_made_once(receiver):
    receiver.script = lambda request: (receiver.wait(0.1), (200, {}, b""))[1]
    count = scaled(60, 2000)
    with workers(receiver.url, 3, "--concurrency", "2") as running:
        living(3)
        for number in range(count):
            delivery(object_pk=number)
        eventually(all_delivered, patience(120))
        for process in running:
            process.terminate()
        results = [ended(process) for process in running]

    assert [code for code, _output in results] == [0, 0, 0], results
    keys = [request.headers["Idempotency-Key"] for request in receiver.requests]
    report("three workers", delivered=count, doubled=len(keys) - len(set(keys)))
    assert len(keys) == len(set(keys)) == count
    assert Attempt.objects.values("sender").distinct().count() == 3


def test_the_first_signal_finishes_what_is_in_flight_and_hands_back_the_rest(receiver):
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b""))[1]
    for number in range(8):
        delivery(object_pk=number)
    lane = [delivery(lane="a"), delivery(lane="a", state="waiting", available_at=None)]
    slow = {"DEADLINE": "60"}
    with workers(receiver.url, 1, "--concurrency", "2", **slow) as (process,):
        receiver.wait_for(2, timeout=30)
        eventually(lambda: held().count() > 2)
        process.send_signal(signal.SIGTERM)
        eventually(lambda: held().count() == 2)
        assert process.poll() is None, "it waits for what is in flight"
        go.set()
        code, output = ended(process)

    assert code == 0, output
    assert "Traceback" not in output
    assert len(receiver.requests) == 2, "what was not begun is not begun any more"
    assert Delivery.objects.filter(state="delivered").count() == 2
    left = Delivery.objects.filter(state="pending")
    assert left.filter(available_at__lte=DatabaseNow(), held_by="").count() == left.count() == 7
    assert Delivery.objects.get(pk=lane[1].pk).state == "waiting"


def test_once_in_parallel_sends_all_and_ends(receiver):
    for number in range(40):
        delivery(object_pk=number)
    with workers(receiver.url, 3, "--once", "--concurrency", "2") as running:
        results = [ended(process) for process in running]

    assert [code for code, _output in results] == [0, 0, 0], results
    assert all_delivered()
    assert len(receiver.requests) == 40
    assert not WorkerProcess.objects.exists()


# Seen from outside.


def test_status_shows_who_lives_and_forgets_who_ended_well(receiver):
    assert status(receiver.url, "--need-worker")[0] == 1
    with workers(receiver.url, 2, "--concurrency", "3") as (ends, dies):
        living(2)
        code, said = status(receiver.url, "--need-worker")
        assert code == 0
        assert [(w["alive"], w["concurrency"], w["endpoints"]) for w in said["workers"]] == [
            (True, 3, ["crm"]),
            (True, 3, ["crm"]),
        ]
        names = {worker["name"].split(":")[1] for worker in said["workers"]}
        assert names == {str(ends.pid), str(dies.pid)}

        ends.terminate()
        assert ended(ends)[0] == 0
        assert WorkerProcess.objects.get().pid == dies.pid
        dies.kill()
        ended(dies)
        assert WorkerProcess.objects.count() == 1, "nobody could take it away"
        WorkerProcess.objects.update(seen_at=DatabaseNow(-DEAD_SECONDS - 1))
        code, said = status(receiver.url, "--need-worker")

    assert code == 1
    assert said["problems"] == ["No dispatch_worker is alive."]
    assert [worker["alive"] for worker in said["workers"]] == [False]


def test_whoever_lives_takes_away_the_row_of_one_long_dead(receiver):
    with workers(receiver.url, 1) as (dies,):
        living(1)
        dies.kill()
        ended(dies)
    WorkerProcess.objects.update(seen_at=DatabaseNow(-FORGET_SECONDS - 1))
    with workers(receiver.url, 1) as (lives,):
        eventually(lambda: set(WorkerProcess.objects.values_list("pid", flat=True)) == {lives.pid})


def test_status_names_what_a_worker_holds(receiver):
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b""))[1]
    delivery()
    with workers(receiver.url, 1) as (process,):
        receiver.wait_for(1, timeout=30)
        (holder,) = status_of("default").holders
        go.set()
        eventually(all_delivered)

    assert holder.deliveries == 1
    assert holder.name.split(":")[1] == str(process.pid)


# Without a database.

#: Of all databases, or of one.
AWAY = "can't be reached ("


@pytest.fixture
def wire():
    """Yield a wire to the database server, and the variables that lead a process over it."""
    server, name = (POSTGRES, "PGPORT") if DATABASE == "postgres" else (MARIADB, "MYSQL_TCP_PORT")
    host = {"PGPORT": "PGHOST", "MYSQL_TCP_PORT": "MYSQL_HOST"}[name]
    with Wire(server["HOST"], int(server["PORT"])) as made:
        yield made, {host: "127.0.0.1", name: str(made.port)}


@behind_a_wire
def test_a_worker_waits_for_a_database_that_is_not_there_yet(receiver, wire):
    cable, leads = wire
    cable.cut()
    delivery()
    with workers(receiver.url, 1, **leads) as (process,):
        says(process, AWAY)
        assert not receiver.requests
        cable.mend()
        eventually(all_delivered, 30)
        living(1)
        process.terminate()
        code, output = ended(process)

    assert (code, len(receiver.requests)) == (0, 1), output
    assert "Traceback" not in output
    assert output.endswith("Stopped.\n")


@behind_a_wire
def test_a_worker_lives_through_a_database_that_goes_and_comes_back(receiver, wire):
    cable, leads = wire
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b""))[1]
    with workers(receiver.url, 1, **leads, DEADLINE="60") as (process,):
        for number in range(3):
            delivery(object_pk=number)
        receiver.wait_for(3, timeout=30)
        living(1)
        cable.cut()
        go.set()  # the answers come while there is nowhere to write them
        says(process, AWAY)
        cable.mend()
        eventually(all_delivered, 30)
        delivery()
        eventually(all_delivered, 30)
        process.terminate()
        code, output = ended(process)

    assert (code, len(receiver.requests)) == (0, 4), output
    assert "Traceback" not in output
    assert not WorkerProcess.objects.exists()


@behind_a_wire
def test_a_worker_ends_when_told_though_the_database_is_away(receiver, wire):
    cable, leads = wire
    go = threading.Event()
    receiver.script = lambda request: (receiver.hold(go), (200, {}, b""))[1]
    delivery()
    with workers(receiver.url, 1, **leads, DEADLINE="60") as (process,):
        receiver.wait_for(1, timeout=30)
        living(1)
        cable.cut()
        go.set()  # there is an answer, and nowhere to write it
        says(process, AWAY)
        process.terminate()
        code, output = ended(process)

    assert code == 0, output
    assert "leases will run out" in output
    assert "Traceback" not in output
    assert output.endswith("Stopped.\n")


@behind_a_wire
def test_status_of_a_database_that_is_away_is_a_sentence(receiver, wire):
    cable, leads = wire
    cable.cut()
    code, output = ended(start(receiver.url, "dispatch_status", **leads))

    assert code == 1
    assert "  default: It can't be reached: " in output
    assert "Traceback" not in output
