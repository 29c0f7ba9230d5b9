"""What the backend enqueues with Django Tasks, and with whom."""

import importlib
import sys

import pytest
from django.utils.module_loading import import_string

from signal_dispatch.backends import backends
from signal_dispatch.backends.tasks import LIBRARY, TasksBackend, django_tasks
from signal_dispatch.models import Delivery
from tests.shop.models import Order

PATH = "signal_dispatch.backends.tasks.TasksBackend"
ENTRY = "signal_dispatch.backends.drain_task"


@pytest.fixture
def fresh(monkeypatch):
    """Let the task be declared anew, as in a process that just began."""
    monkeypatch.delitem(sys.modules, ENTRY, raising=False)


@pytest.fixture
def dummy(settings):
    """Keep the tasks instead of running them."""
    dummy = f"{LIBRARY}.backends.dummy.DummyBackend"
    settings.TASKS = {
        "default": {"BACKEND": dummy},
        "calls": {"BACKEND": dummy, "QUEUES": ["slow"]},
    }
    return django_tasks.task_backends


def test_a_task_names_the_outbox_the_deliveries_and_the_backend(dummy):
    TasksBackend("default").publish("other", [1, 2])

    [kept] = dummy["default"].results
    assert kept.args == ["other", [1, 2], "default"]
    assert kept.task.queue_name == "default"
    assert type(import_string(kept.task.module_path)) is type(kept.task), "as workers find it"


def test_an_alias_and_a_queue_may_be_named(dummy):
    TasksBackend("crm", tasks="calls", queue="slow").publish("default", [1])

    [kept] = dummy["calls"].results
    assert kept.task.queue_name == "slow"


def test_a_worker_finds_the_task_where_the_default_queue_is_not_there(fresh, dummy, settings):
    settings.TASKS = {"calls": settings.TASKS["calls"]}
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "other": {"BACKEND": "signal_dispatch.backends.deferred.DeferredBackend"},
        "default": {"BACKEND": PATH, "OPTIONS": {"tasks": "calls", "queue": "slow"}},
    }

    assert importlib.import_module(ENTRY).drain.queue_name == "slow"


def test_without_a_backend_of_ours_the_task_has_the_defaults(fresh, dummy):
    assert importlib.import_module(ENTRY).drain.backend == "default"


@pytest.mark.django_db(transaction=True)
def test_where_tasks_run_at_once_the_publishing_thread_sends(
    settings, receiver, declare, as_in_production
):
    settings.TASKS = {"default": {"BACKEND": f"{LIBRARY}.backends.immediate.ImmediateBackend"}}
    settings.SIGNAL_DISPATCH_BACKENDS = {"default": {"BACKEND": PATH}}
    declare(Order)
    Order.objects.create(number="A-1")
    backends["default"].drain(10)

    assert Delivery.objects.get().state == "delivered"
    assert len(receiver.requests) == 1
