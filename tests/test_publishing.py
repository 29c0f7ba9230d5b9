"""What the thread publishes that tells an engine, and whom it keeps waiting: nobody."""

import threading
from contextlib import contextmanager
from time import monotonic

import pytest
from django.db import OperationalError, transaction

from signal_dispatch import draining, engines, lanes, lookouts, publishing, repairs, unpublished
from signal_dispatch.backends import backends
from signal_dispatch.backends.published import PublishedBackend
from signal_dispatch.backends.threaded import ThreadedBackend
from signal_dispatch.models import Delivery
from signal_dispatch.testing import mock_endpoint
from tests.deliveries import delivery
from tests.shop.models import Order
from tests.waiting import eventually

pytestmark = pytest.mark.django_db(transaction=True)


class Fake(PublishedBackend):
    """Keep the messages instead of publishing them; ``fault`` is asked before each."""

    def __init__(self, alias, **options):
        super().__init__(alias, **options)
        self.messages = []
        self.closed = 0
        self.fault = lambda: None

    def publish(self, using, ids):
        self.fault()
        self.messages.append((using, ids))

    def disconnect(self):
        self.closed += 1

    @property
    def named(self):
        """The ids that messages named, in all."""
        return [pk for _using, ids in self.messages for pk in ids]

    @property
    def looks(self):
        """How many messages told to look."""
        return sum(1 for _using, ids in self.messages if not ids)


@pytest.fixture
def backend(settings, receiver, declare, as_in_production):
    settings.SIGNAL_DISPATCH_BACKENDS = {"default": {"BACKEND": f"{__name__}.Fake"}}
    declare(Order, path="{number}")
    yield backends["default"]
    backends["default"].stop()


def save(count=1):
    first = Order.objects.count()
    return [Order.objects.create(number=f"A-{first + number}") for number in range(count)]


def ids():
    return list(Delivery.objects.order_by("id").values_list("id", flat=True))


def test_what_is_committed_is_published_and_due_for_anybody(backend):
    save(3)
    eventually(lambda: len(backend.named) == 3)

    assert backend.named == ids()
    assert set(Delivery.objects.values_list("state", "held_by", "epoch")) == {("pending", "", 0)}


def test_nothing_is_published_before_the_commit_or_after_a_rollback(backend):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        save()
        raise ZeroDivisionError
    with transaction.atomic():
        save()
        assert backend.named == []
    eventually(lambda: backend.named)

    assert backend.named == ids()


def test_deliveries_go_in_batches_those_of_each_endpoint_together(backend, settings, declare):
    settings.SIGNAL_DISPATCH_ENDPOINTS = settings.SIGNAL_DISPATCH_ENDPOINTS | {
        "other": {"URL": "http://127.0.0.1:9/"}
    }
    declare(Order, name="shop.Other", endpoint="other", path="{number}")
    with transaction.atomic():
        save(12)
    eventually(lambda: len(backend.named) == 24)

    endpoints = dict(Delivery.objects.values_list("id", "endpoint"))
    assert len(backend.messages) < 12
    assert max(len(batch) for _using, batch in backend.messages) <= 10
    assert all(len({endpoints[pk] for pk in batch}) == 1 for _using, batch in backend.messages)


def test_a_save_returns_while_the_engine_hangs(backend, monkeypatch):
    monkeypatch.setattr(unpublished, "MOST_HELD", 3)
    hangs, goes_on = threading.Event(), threading.Event()

    def hang():
        hangs.set()
        goes_on.wait(30)

    backend.fault = hang
    save()
    assert hangs.wait(10)
    save(5)

    assert backend.messages == [], "six saves returned, and no message was taken"
    backend.fault = lambda: None
    goes_on.set()
    eventually(lambda: len(backend.named) == 4)
    eventually(lambda: backend.looks)  # what was too much is found in the table


def refuse():
    raise ConnectionRefusedError("nobody is there")


def test_what_could_not_be_published_is_told_of_when_the_engine_takes_messages_again(
    backend, caplog
):
    caplog.set_level("INFO", "signal_dispatch")
    refused = []
    backend.fault = lambda: (refused.append(1), refuse())
    save()
    eventually(lambda: refused)
    save(5)
    assert backend.messages == []
    backend.fault = lambda: None
    eventually(lambda: backend.looks)

    assert len(refused) < 6, "it is not asked for each save"
    actions = [record.action for record in caplog.records]
    assert actions[0] == "engine_unavailable"
    assert actions[-1] == "engine_available"
    assert "nobody is there" in caplog.records[0].getMessage()


def test_a_message_that_got_lost_is_made_up_for(backend, monkeypatch):
    monkeypatch.setattr(lookouts, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(publishing, "GRACE_SECONDS", 0.1)
    save()
    eventually(lambda: backend.looks)


def test_whoever_waited_is_published_when_its_lane_is_free(backend):
    [order] = save()
    eventually(lambda: backend.named)
    with transaction.atomic():
        order.save()
        Delivery.objects.filter(state="pending").update(state="delivered", available_at=None)
    eventually(lambda: len(backend.named) == 2)

    assert backend.named == ids()


def test_a_lane_that_was_locked_is_looked_into_again(backend, monkeypatch):
    monkeypatch.setattr(unpublished, "BLOCKED_SECONDS", 0.01)
    release, looked = lanes.release, []

    def release_later(using, wanted, lease):
        looked.append(wanted)
        if len(looked) == 1:
            return lanes.Released(blocked=frozenset(wanted))
        return release(using, wanted, lease)

    monkeypatch.setattr(lanes, "release", release_later)
    test_whoever_waited_is_published_when_its_lane_is_free(backend)

    assert len(looked) > 1


def test_a_database_that_refuses_ends_no_thread(backend, monkeypatch, caplog):
    release, refused = lanes.release, []

    def refuse_once(using, wanted, lease):
        if not refused:
            refused.append(1)
            raise OperationalError("gone")
        return release(using, wanted, lease)

    monkeypatch.setattr(lanes, "release", refuse_once)
    test_whoever_waited_is_published_when_its_lane_is_free(backend)

    assert "outbox_unavailable" in [record.action for record in caplog.records]


def test_a_retry_is_told_of_when_it_is_due(backend, monkeypatch):
    backend.start()
    eventually(lambda: not backend._current()._lookout.next_at < 0)
    delivery(retried=True, attempts=1)
    backend._current().expect("default", 0.01)
    eventually(lambda: backend.looks)


def test_a_message_of_which_a_retry_comes_makes_its_process_look(backend, receiver):
    made = delivery(path="x")
    receiver.play((503, {}, b""), (200, {}, b""))
    backend.take("default", [made.pk])
    eventually(lambda: backend.looks)
    backend.take("default", [])

    made.refresh_from_db()
    assert (made.state, made.attempts) == ("delivered", 2)


def test_the_end_of_a_process_publishes_what_is_in_hand(backend, monkeypatch):
    monkeypatch.setattr(unpublished, "GATHER_SECONDS", 60)
    save(3)
    backend._current().finish(10)

    assert backend.named == ids()
    assert backend.closed


def test_an_engine_that_hangs_keeps_no_process_from_its_end(backend):
    goes_on = threading.Event()
    backend.fault = lambda: goes_on.wait(30)
    save()
    worker = backend._current()
    worker.stop(0.1)

    assert worker._thread.is_alive()
    goes_on.set()
    worker._thread.join(10)


def test_the_connection_to_the_engine_is_closed_when_it_is_not_used(backend, monkeypatch):
    monkeypatch.setattr(engines, "KEEP_SECONDS", 0.05)
    save()
    eventually(lambda: backend.closed == 1)

    assert backend.named == ids()


def test_lanes_that_wait_behind_nothing_are_published(backend, monkeypatch):
    made = delivery(lane="idle", state="waiting", available_at=None)
    monkeypatch.setattr(lookouts, "REPAIR_SECONDS", 0)
    backend.start()
    eventually(lambda: backend.named == [made.pk])


def test_a_base_publishes_nothing():
    with pytest.raises(NotImplementedError):
        PublishedBackend("default").publish("default", [])
    with pytest.raises(NotImplementedError):
        ThreadedBackend.make(backends["default"])


def test_work_that_a_person_asked_for_is_done(backend, monkeypatch):
    asked = []
    monkeypatch.setattr(repairs, "work", asked.append)
    backend.look_for_repairs()
    eventually(lambda: "default" in asked)


def test_drain_waits_for_workers_and_gives_up_in_time(backend):
    save()
    with pytest.raises(TimeoutError, match="does a worker run"):
        backend.drain(0.2)
    Delivery.objects.update(state="delivered", available_at=None)
    backend.drain(10)


def test_drain_gives_up_where_no_thread_can_be_had(backend, monkeypatch):
    monkeypatch.setattr(publishing, "start_thread", lambda thread: False)
    with pytest.raises(TimeoutError, match="does a worker run"):
        backend.drain(0.05)


def test_under_test_nothing_is_published_and_a_lane_goes_on(settings, declare):
    settings.SIGNAL_DISPATCH_BACKENDS = {"default": {"BACKEND": f"{__name__}.Fake"}}
    declare(Order, path="{number}")
    with mock_endpoint("crm"):
        [order] = save()
        with transaction.atomic():
            order.save()
            Delivery.objects.filter(state="pending").update(state="delivered", available_at=None)
        backends["default"].drain(0)

    assert backends["default"].messages == []
    assert backends["default"]._worker is None
    assert Delivery.objects.filter(state="pending").count() == 1


@contextmanager
def uwsgi_without_threads(monkeypatch):
    from types import SimpleNamespace

    with monkeypatch.context() as patch:
        patch.setitem(__import__("sys").modules, "uwsgi", SimpleNamespace(opt={}))
        yield


def test_without_threads_the_rows_are_left_to_others(backend, monkeypatch, receiver):
    with uwsgi_without_threads(monkeypatch):
        save()
        receiver.reply(503)
        backend.take("default", ids())

    assert backend._worker is None
    assert Delivery.objects.get().attempts == 1


def test_while_the_engine_rests_nobody_looks_for_what_it_would_not_take():
    engine = engines.Engine(lambda using, ids: None, lambda: None)
    publisher = publishing.Publisher(lambda: None, engine)
    assert publisher._next_at() <= monotonic(), "it is time to look"

    engine.open_at = monotonic() + 60

    assert publisher._next_at() == engine.open_at


def test_a_task_that_outlives_its_backend_starts_no_thread(backend, monkeypatch):
    """A worker in a thread of the tests may be within ``take()`` when its settings are gone."""
    monkeypatch.setattr(draining, "drain", lambda *given: 0.01)  # the next one is due in a moment
    backends.forget()
    backend.take("default", [])
    backend.start()

    assert not [t for t in threading.enumerate() if t.name == "signal_dispatch-publisher"]


def test_after_a_stop_the_next_task_starts_it_anew(backend, monkeypatch):
    monkeypatch.setattr(draining, "drain", lambda *given: 60.0)
    backend.start()
    backend.stop()
    backend.take("default", [])

    assert [t for t in threading.enumerate() if t.name == "signal_dispatch-publisher"]
