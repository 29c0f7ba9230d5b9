"""What the backend that publishes to Celery tells it, and how long it waits for a broker."""

import socket
import threading
from types import SimpleNamespace

import pytest
from celery import Celery
from celery.signals import worker_process_shutdown, worker_ready

from signal_dispatch.backends import backends
from signal_dispatch.backends.celery import TASK, CeleryBackend, drain
from signal_dispatch.exceptions import InvalidBackend
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.shop.models import Order
from tests.waiting import eventually

PATH = "signal_dispatch.backends.celery.CeleryBackend"

#: What ``OPTIONS`` name below.
app = Celery("named", broker="memory://", set_as_current=False)


@pytest.fixture
def celery(monkeypatch):
    """Make an app current whose messages stay in this process."""
    made = Celery("current", broker="memory://", set_as_current=False)
    current = SimpleNamespace(_get_current_object=lambda: made)
    monkeypatch.setattr("signal_dispatch.backends.celery.current_app", current)
    return made


def messages(celery, queue):
    """Return the arguments and headers of what lies in a queue."""
    found = []
    with celery.connection_for_read() as connection:
        lying = connection.SimpleQueue(queue)
        while lying.qsize():
            message = lying.get_nowait()
            found.append((message.payload[0], message.headers))
            message.ack()
        lying.close()
    return found


def test_a_message_names_the_outbox_the_deliveries_and_the_backend(celery):
    backend = CeleryBackend("default", queue="ids")
    backend.publish("other", [1, 2])
    backend.publish("other", [])
    backend.disconnect()
    (named, headers), (nothing, of_a_look) = messages(celery, "ids")

    assert headers["task"] == TASK == drain.name
    assert (named, nothing) == (["other", [1, 2], "default"], ["other", [], "default"])
    assert headers["expires"] is None
    assert of_a_look["expires"], "later on there is nothing to look for"
    assert headers["ignore_result"]


def test_without_a_queue_the_app_s_routes_say_where_to(celery):
    celery.conf.task_routes = {"signal_dispatch.*": {"queue": "routed"}}
    backend = CeleryBackend("default")
    backend.publish("default", [1])
    backend.disconnect()

    assert len(messages(celery, "routed")) == 1


def test_the_app_may_be_named(celery):
    assert CeleryBackend("default")._app is celery
    assert CeleryBackend("default", app=f"{__name__}.app")._app is app


def test_an_app_that_is_not_there_is_told(settings):
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {"BACKEND": PATH, "OPTIONS": {"app": "tests.nowhere.app"}}
    }
    with pytest.raises(InvalidBackend, match=r'\["OPTIONS"\] can\'t be used: app No module'):
        backends["default"]


@pytest.fixture(params=["amqp", "redis"])
def silent(request):
    """Listen, and never answer; yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"{request.param}://127.0.0.1:{listener.getsockname()[1]}/"


def test_a_broker_that_never_answers_is_given_up(celery, silent):
    celery.conf.broker_url = silent
    backend, ended = CeleryBackend("default"), threading.Event()

    def publish():
        try:
            backend.publish("default", [1])
        except Exception:  # noqa: BLE001 - each transport has its own
            ended.set()

    thread = threading.Thread(target=publish, daemon=True)
    thread.start()

    assert ended.wait(30)
    assert backend._connection is None, "the next message makes a new one"


def test_what_the_app_says_of_its_transport_is_kept(celery):
    celery.conf.broker_url = "redis://127.0.0.1:1/"
    celery.conf.broker_transport_options = {"global_keyprefix": "site:", "socket_timeout": 60}
    options = CeleryBackend("default")._connected().transport_options

    assert options["global_keyprefix"] == "site:"
    assert options["socket_timeout"] == 1


def test_a_forked_child_does_not_use_its_parent_s_connection(celery):
    backend = CeleryBackend("default")
    backend.publish("default", [1])
    connection = backend._connection
    backend._after_fork()

    assert backend._connection is None
    assert connection.connected, "that is for the parent to close"
    connection.release()


@pytest.mark.django_db(transaction=True)
def test_a_worker_looks_for_what_nobody_told_it_of_from_its_start(
    celery, settings, receiver, declare, as_in_production
):
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {"BACKEND": PATH, "OPTIONS": {"queue": "looks"}},
        "slow": {"BACKEND": "signal_dispatch.backends.deferred.DeferredBackend"},
    }
    declare(Order)
    delivery(retried=True)
    worker_ready.send(sender=None)
    worker = backends["default"]._worker
    eventually(lambda: backends["default"]._connection)
    worker_process_shutdown.send(sender=None)

    assert not worker._thread.is_alive()
    assert messages(celery, "looks")[0][0] == ["default", [], "default"]


@pytest.mark.django_db(transaction=True)
def test_a_site_that_runs_tasks_at_once_sends_from_the_publishing_thread(
    celery, settings, receiver, declare, as_in_production
):
    settings.SIGNAL_DISPATCH_BACKENDS = {"default": {"BACKEND": PATH}}
    celery.conf.task_always_eager = True
    declare(Order)
    Order.objects.create(number="A-1")
    backends["default"].drain(10)

    assert Delivery.objects.get().state == "delivered"
    assert len(receiver.requests) == 1
