"""Celery's workers send: real brokers, real workers, and what breaks between them."""

import pytest

from signal_dispatch.models import Attempt
from tests.acceptance.fleet import Fleet, Remote, await_calm, over_processes, states
from tests.acceptance.soak import report, scaled
from tests.brokers import broker
from tests.waiting import eventually

pytestmark = over_processes

TASK = "signal_dispatch.drain"


@pytest.fixture(params=["amqp", "redis"])
def messages(request):
    with broker(request.param) as made:
        yield made


@pytest.fixture
def site(receiver, tmp_path, messages):
    """Start processes of a site with Celery."""
    environment = {
        "BACKEND": "celery.CeleryBackend",
        "BROKER": messages.url,
        "QUEUE": messages.queue,
    }
    with Fleet(receiver.url, tmp_path, **environment) as fleet:
        yield fleet


def start_worker(fleet, *options, **environment):
    """Start a worker, and wait until it is ready."""
    arguments = ("-A", "tests.acceptance.celery_worker", "worker", "--without-mingle")
    arguments += ("--without-gossip", "--without-heartbeat", "-c", "2", "-l", "INFO", *options)
    worker = fleet.run("celery", *arguments, **environment)
    eventually(lambda: " ready." in fleet.output(worker), 60)
    return worker


def end(fleet, worker):
    worker.terminate()
    assert worker.wait(60) == 0, fleet.output(worker)
    assert "Traceback" not in fleet.output(worker), fleet.output(worker)
    fleet._running.remove(worker)


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent", "solo"])
def test_what_one_process_saves_a_worker_sends_once(pool, site, receiver):
    remote, count = Remote(receiver), scaled(40, 2000)
    worker = start_worker(site, "--pool", pool)
    site.join(site.start("save", str(count), "o"))
    await_calm(60)
    end(site, worker)

    report(f"celery {pool}", sent=len(remote.taken), doubled=remote.duplicates)
    assert len(remote.taken) == len(remote.keys) == count
    assert states() == {"delivered": count}
    senders = set(Attempt.objects.values_list("sender", flat=True))
    assert all(str(worker.pid) not in sender for sender in senders) is (pool == "prefork")
