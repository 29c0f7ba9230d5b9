"""What the thread that sends by itself heeds: breakers, probes, pauses, rates."""

import pytest

from signal_dispatch import ModelDispatch, bars, bounds, counting, inline, pausing
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery, EndpointMinute, EndpointState
from signal_dispatch.rates import rates
from signal_dispatch.testing import drain
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def site(settings, receiver, declare, as_in_production):
    """Send in the thread that commits; set keys of ``crm``."""
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "default": {"BACKEND": "signal_dispatch.backends.immediate.ImmediateBackend"}
    }
    declare(Order, path="{number}")
    bounds._ailing.clear()

    def site(*, breaker=None, **keys):
        crm = {"URL": receiver.url, "RETRY": {"delays": [0, 600]}, "BREAKER": breaker}
        settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": crm | keys}

    return site


def save(count, prefix="A"):
    for number in range(count):
        Order.objects.create(number=f"{prefix}-{number}")


def waiting():
    return Delivery.objects.filter(state="pending", held_by="")


def let_the_pause_pass():
    EndpointState.objects.update(open_until=DatabaseNow(-1))


def test_it_opens_at_the_number_and_what_is_saved_waits(site, receiver):
    receiver.reply(503)
    site(breaker={"attempts": 4})
    save(10)

    assert len(receiver.requests) == 4
    assert waiting().filter(attempts=0).count() == 6
    assert counting.judged("default", "crm", 300) == (4, 4)


def test_the_first_commit_after_the_pause_probes_with_one(site, receiver):
    receiver.reply(503)
    site(breaker={"attempts": 4, "pause": 60})
    save(6)
    let_the_pause_pass()
    save(2, "B")
    assert len(receiver.requests) == 5
    let_the_pause_pass()
    receiver.reply(200)
    save(1, "C")

    assert bars.standing("default").barred == {}
    assert len(receiver.requests) == 6
    assert Delivery.objects.filter(available_at__gt=DatabaseNow(60)).count() == 0, "came forward"
    waiting().update(available_at=DatabaseNow(-1))  # they came spread out: let that time pass, too
    save(1, "D")
    assert Delivery.objects.filter(state="delivered").count() == 6 + 2 + 1 + 1


def test_a_probe_that_made_no_call_leaves_it_to_the_next_commit(site, receiver, monkeypatch):
    site(breaker={"attempts": 4, "pause": 600})
    EndpointState.objects.create(endpoint="crm", open_until=DatabaseNow(-1))
    send = inline._send_one
    with monkeypatch.context() as patch:
        patch.setattr(inline, "_send_one", lambda *arguments, **options: None)
        save(1)
    assert bars.standing("default").barred["crm"] <= 0
    assert inline._send_one is send
    save(1, "B")

    assert bars.standing("default").barred == {}


def test_of_a_family_each_endpoint_is_probed_or_left_alone(
    site, receiver, tenant, declare, settings
):
    class ToTenant(ModelDispatch):
        def get_endpoint(self, order, change):
            return f"tenant:{order.status}"

    entry = settings.SIGNAL_DISPATCH_ENDPOINTS["tenant"]
    site()
    settings.SIGNAL_DISPATCH_ENDPOINTS = settings.SIGNAL_DISPATCH_ENDPOINTS | {"tenant": entry}
    declare(Order, base=ToTenant, name="shop.ToTenant", path="{number}")
    tenant.come("1", "2")
    EndpointState.objects.create(endpoint="tenant:1", open_until=DatabaseNow(-1))
    EndpointState.objects.create(endpoint="tenant:2", open_until=DatabaseNow(600))
    Order.objects.create(number="A-1", status="2")
    left_alone = Delivery.objects.filter(endpoint="tenant:2")
    epoch = left_alone.get().epoch
    Order.objects.create(number="A-2", status="1")

    assert sorted(r.path for r in receiver.requests) == ["/1/A-2", "/A-1", "/A-2"]
    assert bars.standing("default").barred.keys() == {"tenant:2"}
    assert left_alone.get().epoch == epoch, "not taken to be given back"


def test_a_paused_endpoint_is_not_called(site, receiver):
    site()
    save(1)
    pausing.pause("crm", by="ann")
    save(3, "B")
    assert len(receiver.requests) == 1
    assert waiting().count() == 3
    pausing.resume("crm", by="ann")
    save(1, "C")

    assert len(receiver.requests) == 5


def test_what_a_rate_has_no_room_for_waits_for_a_later_commit(site, receiver):
    rates.forget()
    site(RATE="3/m")
    save(5)
    assert len(receiver.requests) == 3
    assert waiting().filter(attempts=0).count() == 2
    rates.forget()
    save(1, "B")

    assert len(receiver.requests) == 6


def test_the_first_success_after_a_failure_brings_what_waits_forward(site, receiver):
    receiver.play((503, {}, b""), (200, {}, b""))
    site(breaker={})
    save(1)
    assert Delivery.objects.filter(available_at__gt=DatabaseNow(60)).count() == 1
    save(1, "B")

    assert not Delivery.objects.filter(available_at__gt=DatabaseNow(60)).exists()


def test_without_a_breaker_attempts_are_counted_all_the_same(site, receiver):
    receiver.reply(503)
    site(breaker=None)
    save(20)

    assert len(receiver.requests) == 20
    assert sum(EndpointMinute.objects.values_list("attempts", flat=True)) == 20


def test_what_becomes_free_behind_waits_too(site, receiver):
    receiver.reply(503)
    site(breaker={"attempts": 1}, RETRY={"delays": [0]})
    order = Order.objects.create(number="A-1")
    order.save()

    assert len(receiver.requests) == 1
    assert waiting().count() == 1


def test_under_test_nothing_is_heeded_or_counted(db, settings, declare, deliveries, mock_endpoint):
    declare(Order)
    url = "https://crm.example.com/api/"
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": url, "RATE": "1/h"}}
    crm = mock_endpoint("crm")
    crm.fail(503)
    pausing.pause("crm", by="ann")
    save(15)
    drain()
    deliveries.send()

    assert len(crm.calls) == 15
    assert not EndpointMinute.objects.exists()
