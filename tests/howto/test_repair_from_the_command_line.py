"""The how-to on repairs by commands."""

import pytest

from signal_dispatch.models import Delivery
from tests.howto.pages import Page
from tests.howto.pages_of_operations import commands, run
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = [ONCE, pytest.mark.django_db]

NAME = "how-to/repair-from-the-command-line"
PAGE = Page(NAME)
RETRY = PAGE.block("retry(")


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []
    assert {name for name, _options in commands(NAME)} == {
        "dispatch_status",
        "dispatch_retry",
        "dispatch_resync",
        "dispatch_prune",
        "dispatch_pause",
    }


def test_what_failed_goes_out_again(declare, deliveries, mock_endpoint):
    declare(Order)
    crm = mock_endpoint("crm")
    crm.fail(400, times=1)
    crm.reply(200)
    Order.objects.create(number="A-1")
    deliveries.send()
    assert deliveries[0].state == "failed"
    run(RETRY)
    assert deliveries[0].state == "pending"
    deliveries.send()

    assert (deliveries[0].state, deliveries[0].attempts) == ("delivered", 2)


def test_an_older_state_stays_where_a_later_one_was_delivered(declare, deliveries, mock_endpoint):
    declare(Order)
    crm = mock_endpoint("crm")
    crm.fail(400, times=1)
    crm.reply(200)
    order = Order.objects.create(number="A-1")
    deliveries.send()
    order.save()
    deliveries.send()
    run(RETRY)

    assert list(Delivery.objects.order_by("id").values_list("state", flat=True)) == [
        "failed",
        "delivered",
    ]
