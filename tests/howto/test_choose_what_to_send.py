"""The how-to on payloads."""

import json
from email import message_from_bytes

import pytest

from signal_dispatch.models import Delivery
from tests.howto.pages import Page
from tests.once import ONCE
from tests.shop.models import Customer, Order, Tag

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/choose-what-to-send")
FIELDS = PAGE.block("class OrderToCRM")
OWN = PAGE.block("class OrderToWarehouse")
FORM = PAGE.block("class OrderToForm")
SHEET = PAGE.block("class OrderToSheet")
FILES = PAGE.block("class OrderWithNotes")
SENSITIVE = PAGE.block("class CustomerToBank")
IMPORTS = FIELDS.partition("@register")[0]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture
def crm(mock_endpoint):
    mock = mock_endpoint("crm")
    mock.reply(200)
    return mock


def test_declarations_have_no_fault(write, faults):
    write(FIELDS, OWN, FORM, SHEET, FILES, SENSITIVE)

    assert faults() == set()


def test_payload_of_fields_is_what_the_page_shows(crm, write, deliveries):
    write(FIELDS)
    (shown,) = Page("how-to/choose-what-to-send", "json").blocks
    customer = Customer.objects.create(pk=7, name="Ada", email="ada@example.com")
    order = Order.objects.create(number="A-1", total=12, customer=customer)
    order.tags.set([Tag.objects.create(pk=2), Tag.objects.create(pk=1)])
    deliveries.send()

    assert crm.calls[-1].json == json.loads(shown)
    assert list(crm.calls[-1].json) == list(json.loads(shown))


def test_none_on_the_way_is_null(crm, write, deliveries):
    write(FIELDS)
    Order.objects.create(number="A-1")
    deliveries.send()

    assert crm.calls[0].json["customer__email"] is None


@pytest.mark.parametrize(
    ("declared", "problem"),
    [("", "E023"), ('fields = ["save"]', "E024"), ('fields = ["shipment_set"]', "E024")],
)
def test_what_is_not_declared_right_is_refused_by_a_check(write, faults, declared, problem):
    write(FIELDS.replace(FIELDS[FIELDS.index("fields") : FIELDS.index("    m2m")], declared + "\n"))

    assert faults() == {f"signal_dispatch.{problem}"}


def test_no_fields_make_a_call_without_a_body(crm, write, deliveries):
    write(IMPORTS, FORM.replace('["number", "notes", "tags"]', "()"))
    Order.objects.create(number="A-1")
    deliveries.send()

    assert crm.calls[0].body == b""


def test_get_payload_adds_to_the_fields(crm, write, deliveries):
    write(IMPORTS, OWN)
    Order.objects.create(number="A-1", total=1200)
    deliveries.send()

    assert crm.calls[0].json == {
        "number": "A-1",
        "total": "1200.00",
        "urgent": True,
        "by": {"name": "shop", "event": "created"},
    }


def test_an_error_in_get_payload_leaves_the_save(write, as_in_production):
    write(IMPORTS, OWN.replace("order.total > 1000", "order.weight > 1000"))
    Order.objects.create(number="A-1")

    made = Delivery.objects.get()
    assert made.state == "failed"
    assert "shop.OrderToWarehouse: get_payload() raised AttributeError" in made.reason


def test_form_repeats_lists_and_leaves_none_empty(crm, write, deliveries):
    write(IMPORTS, FORM)
    code = FORM + "\n    def get_payload(self, order, change):\n        return PAYLOAD\n"
    write(IMPORTS, code, PAYLOAD={"tags": [1, 2], "notes": None, "paid": True})
    Order.objects.create(number="A 1")
    deliveries.send()

    bodies = [call.body for call in crm.calls]
    assert b"tags=1&tags=2&notes=&paid=true" in bodies
    assert b"number=A+1&notes=" in bodies
    kinds = {call.headers["Content-Type"] for call in crm.calls if call.body}
    assert kinds == {"application/x-www-form-urlencoded"}


def test_encode_makes_any_other_format(crm, write, deliveries):
    write(IMPORTS, SHEET)
    Order.objects.create(number="A-1", total=12)
    deliveries.send()

    assert crm.calls[0].body == b"A-1;12.00"
    assert crm.calls[0].headers["Content-Type"] == "text/csv"


def test_files_go_beside_the_fields(crm, write, deliveries):
    write(IMPORTS, FILES)
    Order.objects.create(number="A-1", notes="Ring twice.")
    deliveries.send()

    (call,) = crm.calls
    kind = call.headers["Content-Type"]
    field, file = message_from_bytes(f"Content-Type: {kind}\n\n".encode() + call.body).get_payload()
    assert field.get_payload(decode=True) == b"A-1"
    assert (file.get_filename(), file.get_content_type()) == ("A-1.txt", "text/plain")
    assert file.get_payload(decode=True) == b"Ring twice."


def test_what_is_sensitive_is_sent_and_then_masked(crm, write, deliveries):
    write(IMPORTS, SENSITIVE)
    Customer.objects.create(name="Ada", email="ada@example.com")
    deliveries.send()

    assert crm.calls[0].json["email"] == "ada@example.com"
    assert deliveries[0].payload == {"name": "Ada", "email": "[redacted]"}
