"""Attempts in the calling thread, and what is left when one of them breaks."""

import pytest
from django.db import DataError
from django.db.models import F

from signal_dispatch import ModelDispatch, claims, inline, sender, settling
from signal_dispatch.inline import send_inline
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.outbox import Lease
from signal_dispatch.signals import attempt_finished, delivery_finished
from tests.deliveries import delivery
from tests.shop.models import Order

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("unguarded")]

MINE = Lease("me", 60)


@pytest.fixture
def unguarded(monkeypatch):
    monkeypatch.setattr(sender, "network_guard", None)


def held(**values):
    return delivery(**{"held_by": "me", "epoch": 1, "path": "orders"} | values)


def states():
    return list(Delivery.objects.order_by("id").values_list("state", flat=True))


def test_each_is_tried_once_and_told_of(declare, receiver):
    declare(Order)
    made, heard = [held(), held()], []

    def hear(signal, delivery, **kwargs):
        heard.append((signal is attempt_finished, delivery.pk, delivery.state))

    for signal in (attempt_finished, delivery_finished):
        signal.connect(hear)
    try:
        settled = send_inline(made, "default", MINE)
    finally:
        for signal in (attempt_finished, delivery_finished):
            signal.disconnect(hear)

    assert [s.delivery.pk for s in settled] == [d.pk for d in made]
    assert states() == ["delivered", "delivered"]
    assert heard == [(first, d.pk, "delivered") for d in made for first in (True, False)]
    assert len(receiver.requests) == 2


def test_those_behind_in_the_lane_follow(declare, receiver):
    declare(Order)
    made = [held(lane="a", path="1")]
    for path in ("2", "3"):
        held(lane="a", path=path, state="waiting", available_at=None, held_by="", epoch=0)
    send_inline(made, "default", MINE)

    assert [r.path for r in receiver.requests] == ["/1", "/2", "/3"]
    assert states() == ["delivered"] * 3


def test_those_behind_wait_for_a_retry(declare, receiver):
    declare(Order)
    receiver.reply(503)
    made = [held(lane="a")]
    held(lane="a", state="waiting", available_at=None, held_by="", epoch=0)
    send_inline(made, "default", MINE)

    assert states() == ["pending", "waiting"]
    assert len(receiver.requests) == 1


def test_what_somebody_else_took_is_not_called(declare, receiver):
    declare(Order)
    lost, mine = held(), held()
    Delivery.objects.filter(pk=lost.pk).update(held_by="you", epoch=F("epoch") + 1)

    assert [s.delivery for s in send_inline([lost, mine], "default", MINE)] == [mine]
    assert len(receiver.requests) == 1


def test_what_somebody_took_during_the_call_is_not_overwritten(declare, receiver):
    declare(Order)
    made = held()

    class Stealing(ModelDispatch):
        def get_outcome(self, delivery, response):
            Delivery.objects.update(held_by="you", epoch=F("epoch") + 1)

    declare(Order, name="shop.Stolen", base=Stealing)
    stolen = held(dispatch="shop.Stolen")

    assert send_inline([stolen], "default", MINE) == []
    assert Delivery.objects.get(pk=stolen.pk).state == "pending"
    assert Attempt.objects.filter(delivery=stolen).count() == 1
    assert Delivery.objects.get(pk=made.pk).held_by == "you"


@pytest.mark.parametrize(("status", "hook"), [(200, "handle_response"), (400, "handle_failure")])
def test_what_somebody_took_while_a_hook_ran_keeps_the_attempt_alone(
    declare, receiver, status, hook
):
    class Stolen(ModelDispatch):
        pass

    def steal(self, delivery, answer):
        Order.objects.create(number="written by the hook")
        delivery.epoch -= 1  # as if it had been claimed meanwhile

    setattr(Stolen, hook, steal)
    declare(Order, base=Stolen)
    receiver.reply(status)
    stolen = held(epoch=7)

    assert send_inline([stolen], "default", MINE) == []
    assert not Order.objects.exists()
    assert Delivery.objects.get().state == "pending"
    assert Attempt.objects.get().status_code == status


class Broken(ModelDispatch):
    def handle_response(self, delivery, response):
        raise ZeroDivisionError


@pytest.mark.parametrize("lost", [False, True])
def test_a_resolver_that_took_long_is_followed_by_a_call_only_while_the_lease_lasts(
    declare, receiver, tenant, monkeypatch, lost
):
    declare(Order)
    now = [1000.0]
    monkeypatch.setattr(inline, "monotonic", lambda: now[0])

    def slow():
        now[0] += 70
        if lost:
            Delivery.objects.update(held_by="another", epoch=F("epoch") + 1)
        return {"URL": receiver.url}

    tenant.answers["42"] = slow
    made = held(endpoint="tenant:42")
    send_inline([made], "default", MINE)

    assert len(receiver.requests) == (0 if lost else 1)
    assert states() == ["pending" if lost else "delivered"]


def test_an_error_of_a_hook_is_raised_and_nothing_stays_leased(declare, receiver):
    declare(Order, base=Broken)
    made = [held(), held()]
    with pytest.raises(ZeroDivisionError):
        send_inline(made, "default", MINE, raising=True)

    assert states() == ["pending", "pending"]
    assert set(Delivery.objects.values_list("held_by", flat=True)) == {""}
    assert claims.claim_ids("default", MINE, [d.pk for d in made], only_due=True) == made


def test_an_answer_that_can_t_be_stored_counts_all_the_same(declare, receiver, monkeypatch):
    settle = settling.settle

    def refuse_its_body(settlements, using):
        if bytes(settlements[0].attempt.response_body):
            raise DataError("not to be stored")
        return settle(settlements, using)

    monkeypatch.setattr(settling, "settle", refuse_its_body)
    declare(Order)
    send_inline([held()], "default", MINE)

    made = Delivery.objects.get()
    assert (made.state, made.attempts, made.held_by) == ("delivered", 1, "")
    assert len(receiver.requests) == 1


def test_an_error_of_a_hook_is_recorded_where_nobody_wants_it(declare, receiver):
    declare(Order, base=Broken)
    (settled,) = send_inline([held()], "default", MINE)

    assert (settled.state, settled.error_class) == ("pending", "handler")
    assert Delivery.objects.get().handler_tries == 1


def test_what_is_not_registered_here_is_left_to_others(receiver):
    held()

    assert send_inline(list(Delivery.objects.all()), "default", MINE) == []
    assert receiver.requests == []
