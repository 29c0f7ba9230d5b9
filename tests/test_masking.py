"""``sensitive``: sent, and not kept."""

import json
import re

import pytest
from django.core.management import call_command
from django.db import transaction

from signal_dispatch import Event, Outcome, RetryPolicy
from signal_dispatch.backends.console import describe
from signal_dispatch.masking import masked
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.redacting import MASK
from signal_dispatch.repairing import retry
from signal_dispatch.settling import Settlement, settle
from signal_dispatch.signals import delivery_finished
from tests.deliveries import delivery
from tests.sending import attempt
from tests.shop.models import Customer, Order

pytestmark = pytest.mark.django_db

SECRET = "DE02-s3cret"
JSON = {"content-type": "application/json; charset=utf-8"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.fixture
def discreet(declare):
    """Declare a dispatch that tells of a secret, as the order's status."""

    def discreet(**attributes):
        defaults = {
            "fields": ["number", "status"],
            "sensitive": ["status"],
            "retry": RetryPolicy([0, 0, 0], jitter=0),
        }
        return declare(Order, **defaults | attributes)

    return discreet


def only():
    return Delivery.objects.get()


def stored():
    """Return all that stands in the outbox, as text."""
    return str([list(Delivery.objects.values()), list(Attempt.objects.values())])


# What is masked.


@pytest.mark.parametrize(
    ("names", "payload", "left"),
    [
        (["a"], {"a": 1, "b": 2}, {"a": MASK, "b": 2}),
        (["a"], {"a": None}, {"a": MASK}),
        (["a"], {"a": {"b": 1}}, {"a": MASK}),
        (["a.b"], {"a": {"b": 1, "c": 2}, "b": 3}, {"a": {"b": MASK, "c": 2}, "b": 3}),
        (["a.b.c"], {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": MASK}}}),
        (["a.b"], {"a.b": 1, "a": {"b": 2}}, {"a.b": MASK, "a": {"b": MASK}}),
        (["a.b.c"], {"a.b": {"c": 1}}, {"a.b": {"c": MASK}}),
        (
            ["a.b"],
            {"a": [{"b": 1}, {"b": 2, "c": 3}, 4]},
            {"a": [{"b": MASK}, {"b": MASK, "c": 3}, 4]},
        ),
        (["b"], [{"b": 1}], [{"b": MASK}]),
        (["a.b", "x"], {"a": 1}, {"a": 1}),
    ],
)
def test_names_lead_to_values(discreet, names, payload, left):
    dispatch = discreet(sensitive=names)(Order)

    assert json.loads(masked(dispatch, json.dumps(payload).encode(), JSON)) == left


def test_in_an_envelope_names_are_those_of_the_payload(discreet):
    dispatch = discreet(sensitive=["type"], envelope="standard")(Order)
    body = json.dumps({"type": "order.created", "data": {"type": SECRET}}).encode()

    assert json.loads(masked(dispatch, body, JSON)) == {
        "type": "order.created",
        "data": {"type": MASK},
    }


def test_in_a_form_each_value_of_the_name_is_masked(discreet):
    dispatch = discreet(sensitive=["a"])(Order)

    assert masked(dispatch, b"a=1&b=2&a=&b=", FORM) == b"a=%5Bredacted%5D&b=2&a=%5Bredacted%5D&b="


@pytest.mark.parametrize(
    ("body", "headers"), [(b"{", JSON), (b"\xff", JSON), (b"abc", {}), (b"a", {"a": "b"})]
)
def test_of_what_can_t_be_read_nothing_is_kept(discreet, body, headers):
    assert masked(discreet()(Order), body, headers) == MASK.encode()


def test_an_empty_body_stays_empty(discreet):
    assert masked(discreet()(Order), b"", {}) == b""


# When.


@pytest.mark.parametrize("encoding", ["json", "form"])
@pytest.mark.parametrize("handles", [False, True])
def test_once_it_is_delivered_it_is_kept_masked(discreet, receiver, encoding, handles):
    seen = []

    def handle_response(self, delivery, response):
        seen.append(delivery.payload["status"])

    hooks = {"handle_response": handle_response} if handles else {}
    discreet(encoding=encoding, **hooks)
    Order.objects.create(number="A-1", status=SECRET)
    attempt()

    assert SECRET.encode() in receiver.requests[0].body
    assert only().state == "delivered"
    assert only().payload == {"number": "A-1", "status": MASK}
    assert seen == ([SECRET] if handles else [])
    assert SECRET not in stored()


def test_receivers_of_what_is_finished_see_what_is_kept(discreet, receiver):
    seen = []

    def note(delivery, **kwargs):
        seen.append(delivery.payload["status"])

    discreet()
    Order.objects.create(number="A-1", status=SECRET)
    delivery_finished.connect(note)
    try:
        attempt()
    finally:
        delivery_finished.disconnect(note)

    assert seen == [MASK]


def test_of_a_batch_only_those_that_are_sensitive_are_masked(discreet, declare):
    discreet()
    declare(Customer, name="shop.Open", fields=["name"])
    body = json.dumps({"number": "A-1", "status": SECRET}).encode()
    values = {"body": body, "headers": JSON}
    secret, failed = delivery(**values), delivery(**values)
    public = delivery(**values, dispatch="shop.Open", model="shop.customer")
    unknown = delivery(**values, dispatch="shop.Unknown")
    settle(
        [
            Settlement(public, "delivered"),
            Settlement(secret, "delivered"),
            Settlement(failed, "failed"),
            Settlement(unknown, "delivered"),
        ],
        "default",
    )

    kept = dict(Delivery.objects.values_list("pk", "body"))
    assert [bytes(kept[d.pk]) == body for d in (secret, failed, public, unknown)] == [
        False,
        True,
        True,
        True,
    ]


def test_an_attempt_that_is_repeated_still_sends_it(discreet, receiver):
    discreet()
    Order.objects.create(number="A-1", status=SECRET)
    receiver.reply(500)
    attempt()
    assert only().payload["status"] == SECRET
    receiver.reply(200)
    attempt()

    assert [r.json["status"] for r in receiver.requests] == [SECRET, SECRET]
    assert only().payload["status"] == MASK


def test_a_failed_one_keeps_it_for_a_person_may_send_it_again(discreet, receiver):
    discreet()
    Order.objects.create(number="A-1", status=SECRET)
    receiver.reply(400)
    attempt()

    assert (only().state, only().payload["status"]) == ("failed", SECRET)


def test_a_kept_answer_keeps_it_until_it_is_handled(discreet, receiver):
    seen = []

    def handle_response(self, delivery, response):
        seen.append(delivery.payload["status"])
        if len(seen) == 1:
            raise RuntimeError

    discreet(handle_response=handle_response)
    Order.objects.create(number="A-1", status=SECRET)
    attempt()
    attempt()

    assert (seen, len(receiver.requests)) == ([SECRET, SECRET], 1)
    assert (only().state, only().payload["status"]) == ("delivered", MASK)


def test_a_settlement_that_is_refused_masks_nothing(discreet):
    discreet()
    Order.objects.create(number="A-1", status=SECRET)
    late = only()
    Delivery.objects.update(epoch=99)
    assert settle([Settlement(late, "delivered")], "default") == []

    assert (only().state, only().payload["status"]) == ("pending", SECRET)
    assert late.payload["status"] == SECRET


def test_a_cancelled_one_keeps_it_for_the_same_reason(discreet, receiver):
    discreet(remote_id="id", on=["deleted"])
    Order.objects.create(number="A-1", status=SECRET).delete()
    attempt()

    assert (only().state, only().payload["status"]) == ("cancelled", SECRET)


def test_what_is_sent_again_by_hand_carries_it(discreet, receiver):
    discreet()
    Order.objects.create(number="A-1", status=SECRET)
    receiver.reply(400)
    attempt()
    receiver.reply(200)
    assert retry(Delivery.objects.all()) == 1
    attempt()

    assert [r.json["status"] for r in receiver.requests] == [SECRET, SECRET]
    assert SECRET not in stored()


def test_what_a_newer_one_replaces_is_masked(discreet, receiver):
    discreet(latest_wins=True, delay=60)
    order = Order.objects.create(number="A-1", status=SECRET)
    order.status = "paid"
    order.save()

    assert [d.payload["status"] for d in Delivery.objects.order_by("id")] == [MASK, "paid"]


def test_what_is_restored_is_sent_as_it_was(discreet, receiver):
    discreet(
        latest_wins=True,
        delay=60,
        on=["updated"],
        should_send=lambda self, order, change: order.number != "hidden",
    )
    order = Order.objects.create(number="A-1", status=SECRET)
    order.save()
    with transaction.atomic():
        order.notes = "x"
        order.save()
        order.number = "hidden"
        order.save()  # withdraws it again
    (restored,) = Delivery.objects.all()
    assert (restored.state, restored.payload["status"]) == ("waiting", SECRET)


def test_what_is_created_anew_has_it(discreet, receiver):
    def get_outcome(self, delivery, response):
        return Outcome.recreate() if response.status_code == 404 else None

    discreet(get_outcome=get_outcome, on=[Event.UPDATED])
    order = Order.objects.create(number="A-1", status=SECRET)
    order.save()
    receiver.script = lambda request: (404 if len(receiver.requests) < 2 else 201, {}, b"{}")
    attempt()

    assert [r.json["status"] for r in receiver.requests] == [SECRET, SECRET]
    assert [d.state for d in Delivery.objects.order_by("id")] == ["failed", "delivered"]
    assert SECRET not in stored(), "the failed one is replaced, and never sent again"


# What is shown.


def test_it_is_not_printed(discreet, capsys):
    discreet()
    order = Order.objects.create(number="A-1", status=SECRET)
    call_command("dispatch_list", object=f"shop.order:{order.pk}")
    print(describe(only()))  # noqa: T201 - as the console backend does

    out = capsys.readouterr().out
    assert SECRET not in out
    assert len(re.findall(rf'"status": ?"{re.escape(MASK)}"', out)) == 2


def test_nothing_of_it_is_logged(discreet, receiver, caplog):
    caplog.set_level("DEBUG")
    discreet()
    Order.objects.create(number="A-1", status=SECRET)
    receiver.reply(400)
    attempt()

    assert "is failed for good" in caplog.text
    assert SECRET not in caplog.text
