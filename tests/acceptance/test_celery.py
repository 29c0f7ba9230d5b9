"""Celery's workers send: real brokers, real workers, and what breaks between them."""

import threading

import pytest

from tests.acceptance.broker_faults import go_and_come
from tests.acceptance.fleet import Fleet, Remote, await_calm, over_processes, states
from tests.acceptance.soak import report, scaled
from tests.acceptance.wire import Wire
from tests.brokers import broker
from tests.deliveries import delivery
from tests.settings import DATABASE
from tests.waiting import eventually

# What a broker does has nothing to do with the database; the contract suite runs on all of them.
pytestmark = [
    *over_processes,
    pytest.mark.skipif(DATABASE != "postgres", reason="The brokers are the same on all databases."),
]

#: Processes of a worker's pool: what one kill may double.
POOL = 2


@pytest.fixture
def messages(request):
    with broker(request.param) as made:
        yield made


@pytest.fixture
def site(receiver, tmp_path, messages):
    """Start processes of a site whose deliveries Celery sends."""
    environment = {"BACKEND": "celery.CeleryBackend", "QUEUE": messages.queue}
    with Fleet(receiver.url, tmp_path, BROKER=messages.url, **environment) as fleet:
        yield fleet


def start_worker(fleet, *options, **environment):
    """Start a worker, and wait until it is ready."""
    arguments = ("-A", "tests.acceptance.celery_worker", "worker", "-c", str(POOL), "-l", "INFO")
    # Without a beat it would take seconds before it looks whether it is to end.
    arguments += ("--without-mingle", "--without-gossip", "--heartbeat-interval", "1", *options)
    worker = fleet.run("celery", *arguments, **environment)
    eventually(lambda: " ready." in fleet.output(worker), 60)
    return worker


@pytest.mark.parametrize(
    ("messages", "pool"),
    [("amqp", "prefork"), ("redis", "gevent")],
    indirect=["messages"],
)
def test_what_one_process_saves_a_worker_sends_once(messages, pool, site, receiver):
    remote, count = Remote(receiver), scaled(40, 2000)
    worker = start_worker(site, "--pool", pool)
    site.join(site.start("save", str(count), "o"))
    await_calm(60)
    worker.terminate()
    assert not site.join(worker), "a worker ends when it is told to"

    report(f"celery {pool}", sent=len(remote.taken), doubled=remote.duplicates)
    assert "Traceback" not in site.output(worker), site.output(worker)
    assert len(remote.taken) == len(remote.keys) == count
    assert states() == {"delivered": count}


@pytest.mark.parametrize("messages", ["amqp", "redis"], indirect=True)
def test_a_broker_that_is_gone_keeps_no_save_waiting_and_loses_none(
    messages, site, receiver, tmp_path
):
    with Wire(*messages.address) as wire:
        go_and_come(
            f"celery, {messages.url.partition(':')[0]}",
            site,
            wire,
            {"BROKER": messages.through(wire.port)},
            remote=Remote(receiver),
            start_worker=lambda: start_worker(site),
            directory=tmp_path,
        )


@pytest.mark.parametrize("messages", ["redis"], indirect=True)
def test_what_a_killed_worker_had_begun_is_sent_by_the_next(messages, site, receiver):
    remote, count = Remote(receiver), scaled(30, 300)
    held = threading.Event()
    receiver.script = lambda request: (receiver.hold(held, 0.5), remote(request))[1]
    worker = start_worker(site)
    saver = site.start("save_and_stay", str(count), "o")
    receiver.wait_for(POOL, 60)
    site.kill_group(worker)
    site.join(worker)
    held.set()
    start_worker(site)
    await_calm(90)
    site.kill(saver)

    report("celery, a worker killed", sent=len(remote.taken), doubled=remote.duplicates)
    assert states() == {"delivered": count}
    assert len(remote.keys) == count
    assert remote.duplicates <= POOL
    assert all(len(keys) == 1 for keys in remote.keys.values())


@pytest.mark.parametrize("messages", ["redis"], indirect=True)
def test_messages_that_come_twice_make_no_call_twice_and_lost_ones_lose_none(
    messages, site, receiver
):
    remote, count = Remote(receiver), scaled(20, 400)
    rows = [delivery(object_pk=n, body=b'{"number": "o-%d"}' % n).pk for n in range(count)]
    saver = site.start("save_and_stay", str(count), "lost")
    eventually(lambda: f"{count - 1}\n" in site.output(saver), 60)
    messages.empty()
    site.join(site.start("publish_thrice", *map(str, rows)))
    for number in range(2):
        start_worker(site, "-n", f"{number}@%h")
    await_calm(60)
    site.kill(saver)

    assert len(remote.taken) == len(remote.keys) == 2 * count
    assert states() == {"delivered": 2 * count}
