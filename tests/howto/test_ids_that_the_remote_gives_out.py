"""The how-to on the remote's ids."""

import pytest

from signal_dispatch.models import Delivery, RemoteObject
from signal_dispatch.repairing import retry
from tests.howto.pages import Page
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Customer

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/ids-that-the-remote-gives-out")
CONTACTS = PAGE.block("class ContactToHubSpot")
LOCATION = PAGE.block("class CustomerToERP")
ADOPTING = PAGE.block("def adopt")
TEST = PAGE.block("def test_customer_is_created")
IMPORTS = CONTACTS.partition("@register")[0]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture
def hubspot(mock_endpoint):
    return mock_endpoint("hubspot")


def calls(mock):
    return [(call.method, call.path) for call in mock.calls]


def test_declarations_have_no_fault(write, faults):
    write(CONTACTS, LOCATION)

    assert faults() == set()


def test_the_test_of_the_page_passes(write, db, deliveries, mock_endpoint):
    write(CONTACTS, TEST)["test_customer_is_created_and_then_patched"](
        db, deliveries, mock_endpoint
    )

    assert RemoteObject.objects.get().remote_id == "501"


def test_an_update_without_an_id_goes_as_creation_and_a_deletion_not_at_all(
    write, hubspot, deliveries
):
    known, unknown = Customer.objects.create(name="Ada"), Customer.objects.create(name="Bo")
    write(CONTACTS)
    hubspot.reply(201, json={"id": "501"})
    known.save()
    unknown.delete()
    deliveries.send()

    assert calls(hubspot) == [("POST", "contacts")]
    assert [(d.event, d.state) for d in deliveries] == [
        ("created", "delivered"),
        ("deleted", "cancelled"),
    ]


def test_an_id_is_forgotten_with_its_object(write, hubspot, deliveries):
    write(CONTACTS)
    hubspot.reply(201, json={"id": "501"})
    customer = Customer.objects.create(name="Ada")
    deliveries.send()
    customer.delete()
    deliveries.send()

    assert calls(hubspot)[1] == ("DELETE", "contacts/501")
    assert not RemoteObject.objects.exists()


def test_an_answer_without_an_id_is_kept_and_failed(write, receiver, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"hubspot": {"URL": receiver.url}}
    names = write(CONTACTS)
    receiver.script = lambda request: (201, {}, b'{"data": {"id": "501"}}')
    Customer.objects.create(name="Ada")
    attempt()
    made = Delivery.objects.get()
    assert (made.state, made.error_class) == ("failed", "handler")

    names["ContactToHubSpot"].remote_id = "data.id"
    retry(Delivery.objects.all())
    attempt()
    assert Delivery.objects.get().state == "delivered"
    assert RemoteObject.objects.get().remote_id == "501"
    assert len(receiver.requests) == 1


def test_id_of_a_location(write, mock_endpoint, deliveries):
    write(IMPORTS, LOCATION)
    crm = mock_endpoint("crm")
    crm.reply(201, headers={"Location": "/api/customers/c-7"}, method="POST", path="customers")
    crm.reply(200, method="PUT", path="customers/c-7")
    customer = Customer.objects.create(name="Ada")
    customer.save()
    deliveries.send()

    assert calls(crm) == [("POST", "customers"), ("PUT", "customers/c-7")]


def test_what_the_remote_lost_is_created_anew_before_what_waits(write, hubspot, deliveries):
    write(CONTACTS)
    hubspot.reply(201, json={"id": "501"}, method="POST")
    hubspot.reply(201, json={"id": "502"}, method="POST")
    hubspot.fail(404, method="PATCH", path="contacts/501")
    hubspot.reply(200, method="PATCH", path="contacts/502")
    customer = Customer.objects.create(name="Ada")
    deliveries.send()
    customer.save()
    customer.save()
    deliveries.send()

    assert calls(hubspot)[1:] == [
        ("PATCH", "contacts/501"),
        ("POST", "contacts"),
        ("PATCH", "contacts/502"),
    ]
    assert [(d.event, d.state, d.error_class) for d in deliveries][1] == (
        "updated",
        "failed",
        "lost",
    )
    assert RemoteObject.objects.get().remote_id == "502"


def test_a_deletion_of_what_is_lost_is_cancelled(write, hubspot, deliveries):
    write(CONTACTS)
    hubspot.reply(201, json={"id": "501"}, method="POST")
    hubspot.fail(404, method="DELETE")
    customer = Customer.objects.create(name="Ada")
    deliveries.send()
    customer.delete()
    deliveries.send()

    assert deliveries[1].state == "cancelled"
    assert not RemoteObject.objects.exists()


def test_adopted_ids_are_used(write, hubspot, deliveries):
    customer = Customer.objects.create(name="Ada")
    write(CONTACTS, ADOPTING)["adopt"]({customer.pk: "501"})
    hubspot.reply(200)
    customer.save()
    deliveries.send()

    assert calls(hubspot) == [("PATCH", "contacts/501")]
