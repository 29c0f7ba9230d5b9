"""Deliveries that are given to another dispatch or endpoint."""

import pytest

from signal_dispatch import lanes, repointing
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.models import Delivery
from signal_dispatch.repointing import Target, repoint
from tests.deliveries import delivery, seconds_until
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _declared(declare):
    declare(Order)
    declare(Order, name="shop.Loose", ordered=False)


def of(*made):
    return Delivery.objects.filter(pk__in=[each.pk for each in made])


def lane(**values):
    named = {"environment": "", "endpoint": "crm", "dispatch": "shop.Told", "model": "shop.order"}
    return lanes.lane_of(**named | values, pk=1)


def test_what_was_made_for_a_renamed_class_goes_out_as_the_new_one(receiver):
    made = delivery(dispatch="shop.Old", model="shop.oldorder", lane="old", method="PUT")

    assert repoint(of(made), Target(dispatch="shop.Told", model="shop.order")) == 1

    row = Delivery.objects.get()
    assert (row.dispatch, row.model, row.lane) == ("shop.Told", "shop.order", lane())
    assert (row.state, row.uid) == ("pending", made.uid)
    attempt()
    assert Delivery.objects.get().state == "delivered"


def test_what_tells_of_another_model_stays_where_only_one_is_meant():
    made = [delivery(dispatch="shop.Old", model=f"shop.{name}") for name in ("order", "oldorder")]
    target = Target(dispatch="shop.Told", model="shop.order", only_of="shop.order")

    assert repoint(of(*made), target) == 1

    rows = Delivery.objects.order_by("pk").values_list("dispatch", "model")
    assert list(rows) == [("shop.Told", "shop.order"), ("shop.Old", "shop.oldorder")]


def test_another_endpoint_is_another_lane():
    made = delivery(endpoint="gone", lane="old")

    repoint(of(made), Target(endpoint="hubspot"))

    row = Delivery.objects.get()
    assert (row.endpoint, row.dispatch, row.lane) == (
        *("hubspot", "shop.Told"),
        lane(endpoint="hubspot"),
    )


def test_it_waits_where_its_new_lane_is_busy_and_frees_the_old_one():
    busy = delivery(lane=lane())
    made = delivery(endpoint="gone", lane="old")
    behind = delivery(endpoint="gone", lane="old", state="waiting", available_at=None)

    repoint(of(made), Target(endpoint="crm"))

    states = {d.pk: d.state for d in Delivery.objects.all()}
    assert states == {busy.pk: "pending", made.pk: "waiting", behind.pk: "pending"}


def test_several_keep_their_order():
    made = [delivery(endpoint="gone", lane="old")]
    made += [
        delivery(endpoint="gone", lane="old", state="waiting", available_at=None) for _ in "ab"
    ]

    assert repoint(of(*made), Target(endpoint="crm")) == 3
    assert [d.state for d in Delivery.objects.order_by("pk")] == ["pending", "waiting", "waiting"]


def test_a_schedule_is_kept():
    made = delivery(endpoint="gone", lane="old", available_at=DatabaseNow(300))

    repoint(of(made), Target(endpoint="crm"))

    row = Delivery.objects.get()
    assert row.state == "pending"
    assert 290 < seconds_until(row.available_at) < 305


def test_what_needs_no_lane_leaves_its_own():
    made = delivery(lane="old", available_at=DatabaseNow(300))
    behind = delivery(lane="old", state="waiting", available_at=None)

    repoint(of(made), Target(dispatch="shop.Loose", model="shop.order"))

    row = Delivery.objects.get(pk=made.pk)
    assert (row.state, row.lane) == ("pending", "")
    assert 290 < seconds_until(row.available_at) < 305
    assert Delivery.objects.get(pk=behind.pk).state == "pending"


def test_what_waited_needs_to_be_waited_for_no_more():
    delivery(lane="old", held_by="alive", available_at=DatabaseNow(60))
    made = delivery(lane="old", state="waiting", available_at=None)

    repoint(of(made), Target(dispatch="shop.Loose", model="shop.order"))

    row = Delivery.objects.get(pk=made.pk)
    assert (row.state, row.lane) == ("pending", "")
    assert seconds_until(row.available_at) < 5


def test_what_is_finished_moves_and_stays_finished():
    made = delivery(endpoint="gone", lane="old", state="failed", available_at=None)

    assert repoint(of(made), Target(endpoint="crm")) == 1
    assert Delivery.objects.get().state == "failed"
    assert Delivery.objects.get().lane == lane()


def test_what_is_in_hand_stays():
    made = delivery(lane="old", held_by="alive", available_at=DatabaseNow(60))

    assert repoint(of(made), Target(endpoint="hubspot")) == 0
    assert Delivery.objects.get().endpoint == "crm"


def test_where_the_dispatch_is_unknown_a_lane_stays_a_lane():
    made = [delivery(dispatch="shop.Old", lane="old"), delivery(dispatch="shop.Old")]

    repoint(of(*made), Target(endpoint="hubspot"))

    assert [bool(d.lane) for d in Delivery.objects.order_by("pk")] == [True, False]


def test_many_move_in_batches(monkeypatch):
    monkeypatch.setattr(repointing, "BATCH", 2)
    for _ in range(5):
        delivery()

    assert repoint(Delivery.objects.all(), Target(endpoint="hubspot")) == 5


@ONCE
@pytest.mark.parametrize(
    "given",
    [{}, {"dispatch": "shop.Gone", "model": "shop.order"}, {"dispatch": "shop.Told"}],
)
def test_a_target_that_is_none_is_refused(given):
    with pytest.raises(ValueError, match=r"."):
        Target(**given)
