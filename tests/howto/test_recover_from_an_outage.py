"""The how-to on outages: what it promises, in its order of steps."""

from io import StringIO

import pytest
import requests
from django.core.management import call_command

from signal_dispatch import Event, enqueue, suppressed
from signal_dispatch.models import Delivery, RemoteObject
from signal_dispatch.pausing import pause, resume
from signal_dispatch.resending import rebuild
from tests.howto.pages import Page
from tests.howto.pages_of_operations import commands, run
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = [ONCE, pytest.mark.django_db(databases=["default", "other"])]

NAME = "how-to/recover-from-an-outage"
PAGE = Page(NAME)
FORGET = PAGE.block("RemoteObject")
CANCEL = PAGE.block("cancel(")
SINCE = "2026-11-27T18:00"


def manage(name, *arguments):
    out = StringIO()
    call_command(name, *arguments, stdout=out, stderr=StringIO())
    return out.getvalue()


def states(deliveries):
    return [made.state for made in deliveries]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


def test_commands_of_the_page_take_their_options():
    names = [name for name, _options in commands(NAME)]

    assert names.count("dispatch_retry") == 2
    assert names.count("dispatch_resync") == 3
    assert names.count("dispatch_pause") == 2
    assert names.count("dispatch_status") == 2


def test_no_answer_is_tried_again_and_a_404_is_final(declare, deliveries, mock_endpoint):
    declare(Order)
    crm = mock_endpoint("crm")
    crm.fail(requests.Timeout, times=1)
    crm.reply(503)
    crm.reply(404)
    for number in "ABC":
        Order.objects.create(number=number)
    deliveries.send()

    assert states(deliveries) == ["pending", "pending", "failed"]


def test_what_failed_is_retried_during_the_pause_and_sent_after_it(
    declare, deliveries, mock_endpoint
):
    declare(Order, path="{number}", method="PUT")
    crm = mock_endpoint("crm")
    crm.reply(404)
    for number in "AB":
        Order.objects.create(number=number)
    deliveries.send()
    assert states(deliveries) == ["failed", "failed"]

    pause("crm", by="ann", reason="Their proxy answers 404 to everything.")
    newer = Order.objects.get(number="A")
    newer.status = "paid"
    newer.save()
    arguments = ["--endpoint", "crm", "--finished-since", "2026-01-01"]
    foreseen = manage("dispatch_retry", *arguments, "--dry-run")
    assert "1 of 2 deliveries would go out again." in foreseen
    assert "1 would be left:" in foreseen
    assert "1 of 2 deliveries go out again." in manage("dispatch_retry", *arguments)
    assert states(deliveries) == ["failed", "pending", "pending"]

    resume("crm", by="ann")
    crm.reply(200)
    deliveries.send()

    assert states(deliveries) == ["failed", "delivered", "delivered"]
    assert sorted(call.path for call in crm.calls[2:]) == ["A", "B"]


def test_a_pause_leaves_what_is_saved_in_the_outbox(declare, deliveries):
    declare(Order)
    pause("crm", by="ann")
    order = Order.objects.create(number="A")
    order.save()

    assert states(deliveries) == ["pending", "waiting"]
    assert {made.attempts for made in deliveries} == {0}


def test_changes_that_nobody_told_are_told_by_a_resync(declare, deliveries, mock_endpoint):
    declare(Order)
    crm = mock_endpoint("crm")
    crm.reply(200)
    with suppressed():
        Order.objects.bulk_create([Order(number=n) for n in "AB"])
    Order.objects.filter(number="A").update(status="paid")

    arguments = ["shop.Order", "--filter", "status=paid"]
    assert "1 deliveries would be recorded" in manage("dispatch_resync", *arguments, "--dry-run")
    assert "1 deliveries are recorded" in manage("dispatch_resync", *arguments)
    deliveries.send()

    assert [call.json["number"] for call in crm.calls] == ["A"]
    call_command("dispatch_status", database=["default"], stdout=StringIO())  # ends with 0


def test_what_the_remote_lost_is_created_anew(declare, deliveries, mock_endpoint):
    declare(
        Order,
        remote_id="id",
        path={Event.CREATED: "", Event.UPDATED: "{remote_id}"},
        method={Event.CREATED: "POST", Event.UPDATED: "PATCH"},
        on=[Event.CREATED, Event.UPDATED],
    )
    crm = mock_endpoint("crm")
    crm.reply(201, json={"id": "7"})
    crm.reply(201, json={"id": "8"})
    Order.objects.create(number="A")
    deliveries.send()

    run(FORGET)
    manage("dispatch_resync", "shop.Order")
    deliveries.send()

    assert [(call.method, call.path) for call in crm.calls] == [("POST", ""), ("POST", "")]
    assert RemoteObject.objects.get().remote_id == "8"


def test_an_event_of_your_own_goes_back_before_what_waits(declare, deliveries, mock_endpoint):
    declare(Order, on=[Event.UPDATED, "refunded"])
    crm = mock_endpoint("crm")
    crm.reply(404)
    order = Order.objects.create(number="A", status="refunded")
    enqueue(order, "refunded")
    deliveries.send()
    pause("crm", by="ann")
    for status in ("next", "waits"):
        order.status = status
        order.save()
    assert states(deliveries) == ["failed", "pending", "waiting"]

    manage("dispatch_retry", "--endpoint", "crm")
    resume("crm", by="ann")
    crm.reply(200)
    deliveries.send()

    assert [call.json["status"] for call in crm.calls[1:]] == ["next", "refunded", "waits"]


def wrong_then_right(declare, mock_endpoint, deliveries):
    """Leave one FAILED, one PENDING and one WAITING with a path that is corrected by now."""
    made = declare(Order, path="order/{number}", method="PUT", name="shop.OrderToCRM")
    crm = mock_endpoint("crm")
    crm.reply(404, path="order/A")
    crm.fail(503, path="order/B")
    crm.reply(200)
    for number in "AB":
        Order.objects.create(number=number, status="paid")
    deliveries.send()
    Order.objects.get(number="B").save()
    assert states(deliveries) == ["failed", "pending", "waiting"]
    made.path = "orders/{number}"
    return crm


def paths_of(crm):
    return [call.path for call in crm.calls]


def test_a_retry_makes_the_call_that_was_recorded(declare, deliveries, mock_endpoint):
    crm = wrong_then_right(declare, mock_endpoint, deliveries)

    manage("dispatch_retry", "--endpoint", "crm")
    deliveries.send()

    assert paths_of(crm)[2:] == ["order/A"]


def test_what_is_cancelled_during_a_pause_and_rebuilt_has_the_corrected_path(
    declare, deliveries, mock_endpoint
):
    crm = wrong_then_right(declare, mock_endpoint, deliveries)

    pause("crm", by="ann")
    run(CANCEL)
    assert states(deliveries) == ["failed", "cancelled", "cancelled"]
    assert rebuild(Delivery.objects.all()) == 3
    resume("crm", by="ann")
    deliveries.send()

    assert sorted(paths_of(crm)[2:]) == ["orders/A", "orders/B", "orders/B"]
    assert states(deliveries)[3:] == ["delivered"] * 3
    assert [made.event for made in deliveries[3:]] == ["created", "created", "updated"]


def test_what_waits_is_not_rebuilt(declare, deliveries, mock_endpoint):
    wrong_then_right(declare, mock_endpoint, deliveries)

    assert rebuild(Delivery.objects.filter(state__in=["pending", "waiting"])) == 0


def test_without_the_admin_a_resync_tells_it_with_the_corrected_path(
    declare, deliveries, mock_endpoint
):
    crm = wrong_then_right(declare, mock_endpoint, deliveries)

    pause("crm", by="ann")
    run(CANCEL)
    manage("dispatch_resync", "shop.Order", "--dispatch", "shop.OrderToCRM")
    resume("crm", by="ann")
    deliveries.send()
    assert sorted(paths_of(crm)[2:]) == ["orders/A", "orders/B"]

    assert "0 of 1 deliveries go out again." in manage("dispatch_retry", "--endpoint", "crm")


def test_a_dry_run_counts_by_endpoint_dispatch_and_state(declare, deliveries, mock_endpoint):
    wrong_then_right(declare, mock_endpoint, deliveries)

    head = manage("dispatch_retry", "--endpoint", "crm", "--dry-run").splitlines()[1]

    assert head.split() == ["ENDPOINT", "DISPATCH", "STATE", "DELIVERIES"]
