"""The how-to on REST APIs."""

import base64

import pytest
from django.core.management import call_command

from signal_dispatch.exceptions import PathError
from signal_dispatch.models import Delivery
from tests.howto.pages import Page
from tests.once import ONCE
from tests.shop.models import Customer, Order, Shipment

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/send-to-a-rest-api")
TOKEN = PAGE.block("Bearer")
ORDERS = PAGE.block("class OrderToCRM")
SHIPMENTS = PAGE.block("class ShipmentToCRM")
CUSTOMERS = PAGE.block("class CustomerToCRM")
CREDENTIALS = PAGE.block('"AUTH"')
IMPORTS = ORDERS.partition("@register")[0]


class Environment:
    environ = {"CRM_TOKEN": "t0ken", "CRM_PASSWORD": "s3cret", "MAPS_KEY": "k3y"}


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture
def crm(write, mock_endpoint):
    write(TOKEN, os=Environment)
    mock = mock_endpoint("crm")
    mock.reply(200)
    return mock


def test_declarations_have_no_fault(crm, write, faults):
    write(ORDERS, SHIPMENTS, CUSTOMERS)

    assert faults() == set()


def test_each_event_makes_the_call_of_the_table(crm, write, deliveries):
    write(ORDERS)
    order = Order.objects.create(number="A-1", status="paid", total=12)
    order.status = "sent"
    order.save()
    order.delete()
    deliveries.send()

    created, updated, deleted = crm.calls
    assert (created.method, created.path) == ("POST", "orders")
    assert created.json == {"number": "A-1", "status": "paid", "total": "12.00"}
    assert (updated.method, updated.path) == ("PATCH", "orders/A-1")
    assert updated.json == {"number": "A-1", "status": "sent", "total": "12.00"}
    assert (deleted.method, deleted.path, deleted.body) == ("DELETE", "orders/A-1", b"")
    assert {call.headers["Authorization"] for call in crm.calls} == {"Bearer t0ken"}


def test_path_is_filled_and_encoded(crm, write, deliveries):
    write(IMPORTS, SHIPMENTS)
    shipment = Shipment.objects.create(order=Order.objects.create(number="A/1"))
    deliveries.send()

    (call,) = crm.calls
    assert call.path == f"orders/A%2F1/shipments/{shipment.pk}"
    assert call.query == {"year": "2026"}


@pytest.mark.parametrize("number", ["", ".", ".."])
def test_path_that_would_lead_elsewhere_is_never_sent(crm, write, as_in_production, number):
    write(IMPORTS, SHIPMENTS)
    Shipment.objects.create(order=Order.objects.create(number=number))

    made = Delivery.objects.get()
    assert made.state == "failed"
    assert "order__number" in made.reason


def test_a_test_hears_of_such_a_path_at_once(crm, write):
    write(IMPORTS, SHIPMENTS)
    with pytest.raises(PathError):
        Shipment.objects.create(order=Order.objects.create(number=""))


def test_headers_are_stored_and_an_idempotency_key_goes_beside_them(crm, write, deliveries):
    write(IMPORTS, CUSTOMERS)
    Customer.objects.create(name="Ada")
    deliveries.send()

    (call,) = crm.calls
    (made,) = deliveries
    assert made.headers["Accept-Language"] == call.headers["Accept-Language"] == "de"
    assert call.headers["Idempotency-Key"] == str(made.uid)
    assert "Authorization" not in made.headers


def test_secrets_among_headers_are_refused_by_a_check(crm, write, faults):
    code = CUSTOMERS.replace('"Accept-Language": "de"', '"X-Api-Key": "k3y"')
    write(IMPORTS, code)

    assert faults() == {"signal_dispatch.E034"}


def test_credentials_are_added_when_it_is_sent(write, deliveries, mock_endpoint):
    write(CREDENTIALS, os=Environment)
    write(IMPORTS, CUSTOMERS, CUSTOMERS.replace('"crm"', '"maps"'))
    crm, maps = mock_endpoint("crm"), mock_endpoint("maps")
    crm.reply(200)
    maps.reply(200)
    Customer.objects.create(name="Ada")
    deliveries.send()

    assert crm.calls[0].headers["Authorization"] == (
        "Basic " + base64.b64encode(b"shop:s3cret").decode()
    )
    assert maps.calls[0].query == {"key": "k3y"}
    assert "k3y" not in "".join(made.path + str(made.headers) for made in deliveries)


def test_the_request_can_be_seen_before_it_is_made(crm, write, capsys):
    write(ORDERS)
    order = Order(number="A-1")
    Order.objects.bulk_create([order])
    call_command("dispatch_list", object=f"shop.order:{order.pk}")

    shown = capsys.readouterr().out
    assert "PATCH https://crm.example.com/[redacted]/orders/A-1" in shown
    assert not crm.calls
