"""The how-to on signatures: the envelope. What is signed is tried in tests/acceptance."""

import json
from datetime import datetime

import pytest

from signal_dispatch import enqueue
from tests.howto.pages import Page
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = [ONCE, pytest.mark.django_db]

NAME = "how-to/sign-and-rotate"
ENVELOPE = Page(NAME).block("envelope =")


def test_the_envelope_is_what_the_page_shows(write, faults, deliveries, mock_endpoint):
    write(ENVELOPE)
    assert faults() == set()
    crm = mock_endpoint("crm")
    crm.reply(200)
    Order.objects.create(number="A-1", status="paid")
    deliveries.send()

    shown, sent = json.loads(Page(NAME, "json").blocks[0]), crm.calls[0].json
    moments = [datetime.fromisoformat(each.pop("timestamp")) for each in (shown, sent)]
    assert sent == shown
    assert list(sent) == list(shown)
    assert {moment.utcoffset().total_seconds() for moment in moments} == {0}


def test_an_event_of_ones_own_is_a_type_as_well(write, deliveries):
    code = ENVELOPE + '    on = ["paid in full"]\n'
    write(code)
    order = Order.objects.create(number="A-1")
    enqueue(order, event="paid in full")

    assert deliveries[0].payload["type"] == "order.paid_in_full"
