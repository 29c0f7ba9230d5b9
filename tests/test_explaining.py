"""The sentence that says why a delivery waits."""

import pytest
import time_machine
from django.test import override_settings

from signal_dispatch import bars, pausing
from signal_dispatch.breakers import Breaker
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.explaining import (
    Wait,
    attempts_of,
    clock,
    short_holder,
    timed,
    why_it_waits,
)
from signal_dispatch.models import Delivery, EndpointState
from signal_dispatch.retries import RetryPolicy
from signal_dispatch.status import status_of
from tests.deliveries import delivery
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _declared(declare):
    declare(Order)


def why(made):
    wait = why_it_waits(timed(Delivery.objects.all()).get(pk=made.pk), "default")
    return wait.sentence if wait else None


def test_finished_deliveries_wait_for_nothing():
    for state in ("delivered", "failed", "cancelled"):
        assert why(delivery(state=state, available_at=None)) is None


def test_a_due_one_waits_for_a_process():
    made = delivery(available_at=DatabaseNow(-125))

    assert why(made) == "It has been due for 2 min. The next process that looks takes it."


def test_a_retry_names_its_attempt_and_when():
    made = delivery(attempts=2, available_at=DatabaseNow(242))

    assert why(made) == "Attempt 3 of 12 is made in 4 min."


def test_a_kept_answer_waits_for_its_handler():
    made = delivery(attempts=1, handler_tries=1, available_at=DatabaseNow(62))

    assert why(made) == "Its answer is kept; the handler is run again in 1 min."


@pytest.mark.parametrize("reason", ["", "moving house"])
def test_a_paused_endpoint_is_told_with_who_and_since_when(reason):
    due = delivery(available_at=DatabaseNow(-125))
    later = delivery(attempts=1, available_at=DatabaseNow(242))
    pausing.pause("crm", by="ann", reason=reason)
    EndpointState.objects.update(paused_at=DatabaseNow(-3 * 86400))

    paused = f"Its endpoint has been paused by ann since {clock(-3 * 86400)}" + (
        f": {reason}" if reason else "."
    )
    assert why(due) == f"It has been due for 2 min. {paused}"
    assert why(later) == f"Attempt 2 of 12 is made in 4 min. {paused}"

    pausing.resume("crm", by="ann")
    assert "paused" not in why(due)


def test_an_open_breaker_is_told_with_its_end():
    made = delivery(available_at=DatabaseNow(-125))
    bars.open_breaker("default", "crm", Breaker(), attempts=10, failed=10)
    EndpointState.objects.update(open_until=DatabaseNow(3 * 86400 + 60))

    end = clock(3 * 86400 + 60)
    assert why(made) == (
        "It has been due for 2 min. "
        f"The breaker of its endpoint is open until {end}: then one call tries whether it is well."
    )

    EndpointState.objects.update(open_until=DatabaseNow(-1))
    assert why(made).endswith("is open: one call at a time tries whether it is well.")


@pytest.mark.parametrize(("rate", "calls"), [("10/m", "10 calls"), ("1/m", "1 call")])
def test_a_rate_is_told_of_what_is_due(settings, rate, calls):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {**settings.SIGNAL_DISPATCH_ENDPOINTS["crm"], "RATE": rate}
    }
    made = delivery(available_at=DatabaseNow(-125))
    later = delivery(attempts=1, available_at=DatabaseNow(242))

    assert why(made) == (
        "It has been due for 2 min. "
        f"Its endpoint gets at most {calls} in 1 min: it waits for its turn."
    )
    assert why(later) == "Attempt 2 of 12 is made in 4 min."


def test_one_behind_another_tells_what_holds_that_one_up():
    delivery(lane="a", available_at=DatabaseNow(-60))
    made = delivery(lane="a", state="waiting", available_at=None)
    pausing.pause("crm", by="ann", reason="moving house")

    assert "Of that one: It has been due for 1 min. Its endpoint has been paused by ann" in why(
        made
    )


def test_one_in_hand_names_the_process_and_its_lease():
    made = delivery(held_by="web1:4711:aabbccdd", available_at=DatabaseNow(60))

    assert why(made).startswith("web1:4711 has it in hand, until ")


def test_one_whose_lease_is_over_is_due():
    made = delivery(held_by="web1:4711:aabbccdd", available_at=DatabaseNow(-5))

    assert why(made).startswith("It has been due for 5 s")


def test_one_behind_another_names_that_one_and_what_it_waits_for():
    head = delivery(lane="a", attempts=1, available_at=DatabaseNow(95))
    delivery(lane="a", state="delivered", available_at=None)
    made = delivery(lane="a", state="waiting", available_at=None)
    row = timed(Delivery.objects.all()).get(pk=made.pk)

    assert why_it_waits(row, "default") == Wait(
        f"It waits behind delivery {head.pk} of this object. "
        "Of that one: Attempt 2 of 12 is made in 1 min.",
        behind=head.pk,
    )


def test_a_head_that_was_put_there_later_is_found():
    made = delivery(lane="a", state="waiting", available_at=None)
    head = delivery(lane="a")

    assert f"behind delivery {head.pk} of" in why(made)


def test_between_mark_and_release_the_first_one_waits_for_a_look():
    first = delivery(lane="a", state="waiting", available_at=None)
    second = delivery(lane="a", state="waiting", available_at=None)

    assert why(first) == "Nothing is before it any more: the next look frees it."
    assert why(second) == f"It waits behind delivery {first.pk} of this object."


def test_a_delay_is_told():
    made = delivery(lane="a", state="waiting", available_at=None, not_before=DatabaseNow(30))

    assert why(made) in {f"It is to go out in {n} s, and not before." for n in (29, 30)}


@pytest.mark.parametrize(
    "values",
    [
        {"endpoint": "gone"},
        {"dispatch": "shop.Old"},
        {"model": "shop.seat"},
        {"environment": "production"},
    ],
)
def test_what_nobody_here_may_take_says_so_as_the_overview_does(values, settings):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"
    made = delivery(**{"environment": "staging"} | values)
    (stranded,) = status_of("default").stranded
    sentence = f"Nobody here takes it. {stranded.advice}"

    assert why(made) == sentence
    Delivery.objects.update(available_at=DatabaseNow(50))
    assert why(made) == sentence
    Delivery.objects.update(lane="a", state="waiting", available_at=None)
    assert why(made) == sentence


def test_the_attempts_are_those_of_dispatch_or_endpoint(declare):
    declare(Order, name="shop.Short", retry=RetryPolicy(delays=[0, 1]))

    assert attempts_of(Delivery(dispatch="shop.Short", model="shop.order", endpoint="crm")) == 2
    assert attempts_of(Delivery(dispatch="shop.Told", model="shop.order", endpoint="crm")) == 12
    assert attempts_of(Delivery(dispatch="shop.Told", model="shop.order", endpoint="gone")) is None


@ONCE
@pytest.mark.parametrize("use_tz", [True, False])
def test_the_clock_names_the_day_unless_it_is_today(use_tz):
    with (
        time_machine.travel("2026-03-10T12:00:00Z", tick=False),
        override_settings(USE_TZ=use_tz, TIME_ZONE="UTC"),
    ):
        assert clock(180) == "12:03"
        assert clock(13 * 3600) == "03/11/2026 1 a.m."


@ONCE
def test_a_holder_is_shown_without_its_word():
    assert short_holder("web1:4711:aabbccdd") == "web1:4711"
    assert short_holder("odd") == "odd"
