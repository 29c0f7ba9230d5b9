"""The how-to on moving: what is to be written instead does what it says."""

import hmac
import sys
from types import ModuleType

import pytest
from django.core.management import call_command
from django.db.models.signals import post_save
from rest_framework.serializers import ModelSerializer

from signal_dispatch import Event, ModelDispatch, enqueue, suppressed
from signal_dispatch.models import Delivery
from signal_dispatch.registry import registry
from tests.howto.pages import Page, shop_of_the_tests
from tests.howto.pages_of_operations import commands, run
from tests.once import ONCE
from tests.shop.models import Customer, Order, Subscription

pytestmark = [ONCE, pytest.mark.django_db(databases=["default", "other"])]

NAME = "how-to/move-from-other-packages"
PAGE = Page(NAME)
KNOWN_IDS = PAGE.block("bulk_create")
THREAD = PAGE.block("Thread(")
TASK = PAGE.block("@shared_task")
ORDER_TO_CRM = PAGE.block("class OrderToCRM")
WEBHOOK_SETTINGS = PAGE.block("DJANGO_WEBHOOK")
TO_WEBHOOKS = PAGE.block("class OrderToWebhooks")
OLD_SIGNATURE = PAGE.block("class OldSignature")
HOOK_SETTINGS = PAGE.block("HOOK_EVENTS")
TO_HOOKS = PAGE.block("class OrderToHooks")

SECRET = "old-secret-1234"
signature = {}


class OrderSerializer(ModelSerializer):
    class Meta:
        model = Order
        fields = ["number", "status"]


def endpoint_of(key):
    subscription = Subscription.objects.get(pk=key, active=True)
    return {"URL": subscription.url, "AUTH": signature["class"](subscription.token)}


@pytest.fixture(autouse=True)
def shop(monkeypatch, settings):
    serializers = ModuleType("shop.serializers")
    serializers.OrderSerializer = OrderSerializer
    monkeypatch.setitem(sys.modules, "shop.serializers", serializers)
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": "https://crm.example.com/api/"},
        "tenant": {"RESOLVER": f"{__name__}.endpoint_of"},
    }
    signature["class"] = run(OLD_SIGNATURE)["OldSignature"]
    with shop_of_the_tests():
        yield


@pytest.fixture
def subscriptions():
    customers = [Customer.objects.create(name=name) for name in ("Ada", "Bob")]
    return [
        Subscription.objects.create(
            customer=customer, url=f"https://{customer.name}.example.com/", token=SECRET
        )
        for customer in customers
    ]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []
    assert [name for name, _options in commands(NAME)] == ["dispatch_list", "dispatch_resync"]


@pytest.mark.parametrize(
    ("before", "name"), [(THREAD, "order_saved"), (TASK, "order_saved")], ids=["thread", "task"]
)
def test_what_is_there_before_is_a_receiver_that_works(before, name):
    names = run(before)
    assert post_save.disconnect(names[name], sender=Order)


def test_settings_before_are_those_of_the_packages():
    assert run(WEBHOOK_SETTINGS)["DJANGO_WEBHOOK"] == {"MODELS": ["shop.Order"]}
    assert run(HOOK_SETTINGS)["HOOK_EVENTS"]["order.saved"] == "shop.Order.updated"


def test_the_same_call_is_made_and_its_answer_kept(deliveries, mock_endpoint):
    run(ORDER_TO_CRM)
    crm = mock_endpoint("crm")
    crm.reply(200, json={"id": "c-7"})
    order = Order.objects.create(number="A-1", status="paid")
    deliveries.send()

    (call,) = crm.calls
    assert (call.method, call.path) == ("PUT", "orders/A-1")
    assert call.json == {"number": "A-1", "status": "paid"}
    order.refresh_from_db()
    assert order.crm_id == "c-7"


def test_the_request_can_be_compared_before_the_deploy(capsys):
    run(ORDER_TO_CRM)
    with suppressed():
        order = Order.objects.create(number="A-1", status="paid")
    call_command("dispatch_list", object=f"shop.order:{order.pk}")

    shown = capsys.readouterr().out
    assert "PUT" in shown
    assert "orders/A-1" in shown
    assert not Delivery.objects.exists()


def test_an_id_that_was_known_before_is_used(declare, deliveries, mock_endpoint):
    declare(
        Order,
        name="shop.OrderToCRM",
        remote_id="id",
        on=[Event.CREATED, Event.UPDATED],
        path={Event.CREATED: "", Event.UPDATED: "{remote_id}"},
        method={Event.CREATED: "POST", Event.UPDATED: "PATCH"},
    )
    with suppressed():
        order = Order.objects.create(number="A-1", crm_id="c-7")
        Order.objects.create(number="A-2")
    run(KNOWN_IDS)
    crm = mock_endpoint("crm")
    crm.reply(200)
    order.save()
    deliveries.send()

    assert [(call.method, call.path) for call in crm.calls] == [("PATCH", "c-7")]


def test_webhooks_get_the_body_and_the_signature_that_they_had(
    subscriptions, deliveries, mock_endpoint
):
    run(TO_WEBHOOKS)
    hooks = [mock_endpoint(f"tenant:{subscription.pk}") for subscription in subscriptions]
    for hook in hooks:
        hook.reply(200)
    order = Order.objects.create(number="A-1", status="paid")
    order.delete()
    with suppressed():
        order = Order.objects.create(number="A-2", status="paid")
    order.save()
    deliveries.send()

    told = [call.json["topic"] for call in hooks[0].calls]
    assert sorted(told) == ["shop.Order/create", "shop.Order/delete", "shop.Order/update"]
    (call,) = [call for call in hooks[1].calls if call.json["object"]["number"] == "A-2"]
    assert call.json == {
        "object": {"id": order.pk, "number": "A-2", "status": "paid"},
        "topic": "shop.Order/update",
        "object_type": "shop.Order",
    }
    signed = call.headers["Django-Webhook-Request-Timestamp"].encode() + b":" + call.body
    expected = hmac.digest(SECRET.encode(), signed, "sha256").hex()
    assert call.headers["Django-Webhook-Signature-v1"] == expected


def test_hooks_of_the_customer_get_the_body_that_they_had(subscriptions, deliveries, mock_endpoint):
    run(TO_HOOKS)
    mine, other = (mock_endpoint(f"tenant:{subscription.pk}") for subscription in subscriptions)
    mine.reply(200)
    with suppressed():
        order = Order.objects.create(
            number="A-1", status="paid", customer=subscriptions[0].customer
        )
    order.save()
    deliveries.send()

    assert [call.json for call in mine.calls] == [
        {"hook": {"event": "order.saved"}, "data": {"number": "A-1", "status": "paid"}}
    ]
    assert other.calls == []


def test_an_event_of_your_own_is_enqueued(declare, deliveries):
    declare(Order, on=["refunded"])
    order = Order.objects.create(number="A-1")
    assert len(deliveries) == 0

    enqueue(order, event="refunded")

    assert [made.event for made in deliveries] == ["refunded"]


def test_a_site_without_dispatches_is_as_it_was():
    assert not [dispatch for dispatch in registry if dispatch.model is Order]
    assert Order._save_table.__module__ == "django.db.models.base"
    assert ModelDispatch.ordered
