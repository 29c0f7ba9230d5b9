"""Workers of Django Tasks send: those of django-tasks-db, and RQ's, and what breaks around them."""

import json
import threading
from contextlib import contextmanager

import pytest

from tests.acceptance.broker_faults import go_and_come
from tests.acceptance.fleet import Fleet, Remote, await_calm, over_processes, states
from tests.acceptance.soak import report, scaled
from tests.acceptance.wire import Wire
from tests.brokers import broker
from tests.deliveries import delivery
from tests.settings import DATABASE
from tests.waiting import eventually

pytestmark = [
    *over_processes,
    pytest.mark.skipif(DATABASE != "postgres", reason="The contract suite runs on all databases."),
]


class OnDatabase:
    """A site whose tasks stand in its database."""

    def __init__(self, fleet):
        self.fleet = fleet

    def worker(self):
        """Start a worker, and wait until it is ready."""
        arguments = ("--interval", "0.1", "--no-startup-delay", "--queue-name", "*")
        worker = self.fleet.start("db_worker", *arguments)
        return self._ready(worker, "Starting worker")

    def forget(self):
        """Lose all tasks."""
        from django_tasks_db.models import DBTaskResult

        DBTaskResult.objects.all().delete()

    def _ready(self, worker, word):
        eventually(lambda: word in self.fleet.output(worker), 60)
        return worker


class OnRQ(OnDatabase):
    """A site whose tasks stand in Redis."""

    def __init__(self, fleet, messages):
        super().__init__(fleet)
        self.messages = messages

    def worker(self):
        arguments = (self.messages.queue, "--job-class", "django_tasks_rq.Job")
        return self._ready(self.fleet.start("rqworker", *arguments), "Listening on")

    def forget(self):
        self.messages.empty()


@contextmanager
def on_rq(receiver, directory):
    with broker("redis") as messages:
        environment = {
            "BACKEND": "tasks.TasksBackend",
            "BACKEND_OPTIONS": json.dumps({"queue": messages.queue}),
            "QUEUE": messages.queue,
            "RQ": messages.url,
        }
        with Fleet(receiver.url, directory, **environment) as fleet:
            yield OnRQ(fleet, messages)


@pytest.fixture(params=["db", "rq"])
def site(request, receiver, tmp_path):
    if request.param == "rq":
        with on_rq(receiver, tmp_path) as site:
            yield site
        return
    with Fleet(receiver.url, tmp_path, BACKEND="tasks.TasksBackend") as fleet:
        yield OnDatabase(fleet)


def test_what_one_process_saves_two_workers_send_once(site, receiver):
    remote, count = Remote(receiver), scaled(40, 1000)
    for _worker in range(2):
        site.worker()
    site.fleet.join(site.fleet.start("save", str(count), "o"))
    await_calm(60)

    assert len(remote.taken) == len(remote.keys) == count
    assert states() == {"delivered": count}


def test_what_a_killed_worker_had_begun_is_sent_by_the_next(site, receiver):
    remote, count = Remote(receiver), scaled(20, 200)
    held = threading.Event()
    receiver.script = lambda request: (receiver.hold(held, 0.5), remote(request))[1]
    worker = site.worker()
    saver = site.fleet.start("save_and_stay", str(count), "o")
    receiver.wait_for(1, 60)
    site.fleet.kill_group(worker)
    site.fleet.join(worker)
    held.set()
    site.worker()
    await_calm(90)
    site.fleet.kill(saver)

    report("tasks, a worker killed", sent=len(remote.taken), doubled=remote.duplicates)
    assert states() == {"delivered": count}
    assert len(remote.keys) == count
    assert remote.duplicates <= 2, "RQ runs each task in a process that may outlive the kill"
    assert all(len(keys) == 1 for keys in remote.keys.values())


def test_tasks_that_run_twice_make_no_call_twice_and_lost_ones_lose_none(site, receiver):
    remote, count = Remote(receiver), scaled(20, 200)
    rows = [delivery(object_pk=n, body=b'{"number": "o-%d"}' % n).pk for n in range(count)]
    saver = site.fleet.start("save_and_stay", str(count), "lost")
    eventually(lambda: f"{count - 1}\n" in site.fleet.output(saver), 60)
    site.forget()
    site.fleet.join(site.fleet.start("publish_thrice", *map(str, rows)))
    for _worker in range(2):
        site.worker()
    await_calm(60)
    site.fleet.kill(saver)

    assert len(remote.taken) == len(remote.keys) == 2 * count
    assert states() == {"delivered": 2 * count}


def test_a_redis_that_is_gone_keeps_no_save_waiting_and_loses_none(receiver, tmp_path):
    with on_rq(receiver, tmp_path) as site, Wire(*site.messages.address) as wire:
        go_and_come(
            "rq",
            site.fleet,
            wire,
            {"RQ": f"{site.messages.through(wire.port)}?socket_timeout=1"},
            remote=Remote(receiver),
            start_worker=site.worker,
            directory=tmp_path,
        )
