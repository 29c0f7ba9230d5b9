"""Answers handled once: an answer that came is kept, and what its handler wrote counts once."""

import pytest

from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.repairing import retry
from tests.acceptance.fleet import Fleet, Remote, await_calm, over_processes
from tests.acceptance.soak import report
from tests.deliveries import delivery
from tests.shop.models import Order

pytestmark = over_processes

LEASE = 3


@pytest.fixture
def fleet(receiver, tmp_path):
    with Fleet(receiver.url, tmp_path, DECLARED="handled", LEASE_SECONDS=str(LEASE)) as fleet:
        yield fleet


def order_to_tell(status):
    order = Order.objects.create(number="a", status=status)
    return order, delivery(dispatch="shop.Handled", object_pk=order.pk, body=b'{"number": "a"}')


def test_a_kept_answer_survives_its_process_and_is_handled_by_the_next(receiver, fleet):
    remote = Remote(receiver)
    order, made = order_to_tell("broken")
    assert fleet.join(fleet.worker(crash="after_answer_stored"))
    order.refresh_from_db()
    assert order.total == 0
    Order.objects.update(status="mended")
    worker = fleet.worker()
    await_calm(30)
    fleet.end(worker)

    order.refresh_from_db()
    made.refresh_from_db()
    report("answer kept", calls=len(receiver.requests), handled=float(order.total))
    assert len(receiver.requests) == len(remote.taken) == 1
    assert (order.total, order.crm_id) == (1, "c-a")
    assert (made.state, made.attempts, made.handler_tries) == ("delivered", 1, 1)
    assert Attempt.objects.count() == 1


def test_a_handler_that_never_works_fails_and_after_the_fix_is_run_again_by_hand(receiver, fleet):
    Remote(receiver)
    order, made = order_to_tell("broken")
    while Delivery.objects.unfinished().exists():
        settings = {"RETRY_SECONDS": "0.1", "ATTEMPTS": "3"}
        assert fleet.join(fleet.worker(crash="after_answer_stored", **settings))

    order.refresh_from_db()
    made.refresh_from_db()
    report("answer never handled", calls=len(receiver.requests), kills=fleet.kills)
    assert len(receiver.requests) == 1
    assert (made.state, made.error_class, made.handler_tries) == ("failed", "handler", 3)
    assert "RuntimeError: not today" in made.reason
    assert order.total == 0
    assert bytes(Attempt.objects.get().response_body) == b'{"id": "c-a"}'

    Order.objects.update(status="mended")
    assert retry(Delivery.objects.filter(error_class="handler")) == 1
    worker = fleet.worker()
    await_calm(30)
    fleet.end(worker)

    order.refresh_from_db()
    made.refresh_from_db()
    report("answer handled by hand", calls=len(receiver.requests), handled=float(order.total))
    assert (order.total, order.crm_id) == (1, "c-a")
    assert made.state == "delivered"
    assert len(receiver.requests) == Attempt.objects.count() == 1


@pytest.mark.parametrize("point", ["after_answer", "before_settling", "after_mark"])
def test_a_kill_around_the_handler_leaves_what_it_wrote_once(point, receiver, fleet):
    remote = Remote(receiver)
    order, made = order_to_tell("fine")
    assert fleet.join(fleet.worker(crash=point))
    worker = fleet.worker()
    await_calm(LEASE + 30)
    fleet.end(worker)

    order.refresh_from_db()
    made.refresh_from_db()
    report(f"killed {point}, handler", calls=len(remote.taken), handled=float(order.total))
    assert order.total == 1
    assert len(remote.taken) == (1 if point == "after_mark" else 2)
    assert len(remote.keys["a", 0]) == 1
    assert made.state == "delivered"
