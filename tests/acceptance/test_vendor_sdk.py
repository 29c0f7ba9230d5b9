"""The how-to on vendors' SDKs, with a real one: Stripe's, against a server that plays Stripe."""

import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import parse_qs

import pytest

import tests.shop
import tests.shop.models
from signal_dispatch.models import Attempt, Delivery, RemoteObject
from signal_dispatch.registry import registry
from tests.once import ONCE
from tests.shop.models import Customer
from tests.waiting import eventually

pytestmark = ONCE

PAGE = Path(__file__).parents[2] / "docs/how-to/vendor-sdk.md"
KEY = "sk_test_s3cret"


def blocks():
    return re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def how_to(monkeypatch, settings):
    """Do as the how-to says, with ``shop`` as the tests have it; give the names it makes."""
    monkeypatch.setitem(sys.modules, "shop", tests.shop)
    monkeypatch.setitem(sys.modules, "shop.models", tests.shop.models)
    monkeypatch.setenv("STRIPE_API_KEY", KEY)
    names = {"__name__": "tests.shop.dispatches", "os": os, "Customer": Customer}
    before = set(registry)
    for block in blocks():
        exec(compile(block, "dispatches.py", "exec"), names)  # noqa: S102 - our own page
        for name in ("SIGNAL_DISPATCH_ENDPOINTS", "STRIPE_API_KEY", "STRIPE_ADDRESSES"):
            setattr(settings, name, names[name])
    yield names
    for dispatch in set(registry) - before:
        registry.remove(type(dispatch))


@pytest.fixture
def as_stripe(how_to, receiver, settings):
    """Let a server on loopback play Stripe; it has not much to say."""
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "stripe": {"SEND_LIMIT": 60, "RETRY": {"delays": [0, 0.05, 0.05], "jitter": 0}}
    }
    settings.STRIPE_ADDRESSES = {"api": receiver.url.rstrip("/")}
    receiver.script = lambda request: (200, {}, json.dumps({"id": "cus_7", "name": "A"}).encode())
    return receiver


def error(status, **details):
    return status, {}, json.dumps({"error": details}).encode()


def wait_for(*states):
    eventually(
        lambda: list(Delivery.objects.order_by("id").values_list("state", flat=True)) == [*states]
    )


def test_the_test_of_the_how_to_passes(how_to, db, deliveries, mock_endpoint):
    how_to["test_customer_is_known_to_stripe"](db, deliveries, mock_endpoint)

    assert RemoteObject.objects.get().remote_id == "cus_7"


@pytest.mark.django_db(transaction=True)
def test_create_and_update_go_out_through_the_sdk(as_stripe, as_in_production):
    customer = Customer.objects.create(name="Ada", email="ada@example.com")
    wait_for("delivered")
    customer.name = "Ada L."
    customer.save()
    wait_for("delivered", "delivered")

    created, updated = as_stripe.requests
    assert (created.method, created.path) == ("POST", "/v1/customers")
    assert (updated.method, updated.path) == ("POST", "/v1/customers/cus_7")
    assert parse_qs(created.body.decode()) == {"name": ["Ada"], "email": ["ada@example.com"]}
    keys = [str(uid) for uid in Delivery.objects.order_by("id").values_list("uid", flat=True)]
    assert [r.headers["Idempotency-Key"] for r in as_stripe.requests] == keys
    assert created.headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.django_db(transaction=True)
def test_a_failing_sdk_is_tried_again_under_the_same_key_and_tells_no_secret(
    as_stripe, as_in_production, caplog
):
    as_stripe.play(
        error(429, type="rate_limit_error"),
        error(401, message=f"Invalid API Key provided: {KEY}"),
        error(400, type="invalid_request_error", code="email_invalid", message="ada@example.com"),
    )
    Customer.objects.create(name="Ada", email="ada@example.com")
    wait_for("failed")

    row = Delivery.objects.get()
    assert row.reason == "Stripe refused it: email_invalid."
    tried = list(Attempt.objects.order_by("number").values_list("error_class", "error"))
    assert tried[0][0] == tried[1][0] == "sdk"
    assert "send() raised RateLimitError (dispatches.py, line" in tried[0][1]
    assert "send() raised AuthenticationError (dispatches.py, line" in tried[1][1]
    assert len({r.headers["Idempotency-Key"] for r in as_stripe.requests}) == 1
    assert KEY not in f"{tried} {row.reason} {caplog.text}"


@pytest.mark.django_db(transaction=True)
def test_what_stripe_lost_is_created_anew(as_stripe, as_in_production):
    customer = Customer.objects.create(name="Ada")
    wait_for("delivered")
    as_stripe.play(
        error(404, type="invalid_request_error", code="resource_missing"),
        (200, {}, b'{"id": "cus_8"}'),
    )
    customer.save()
    wait_for("delivered", "failed", "delivered")

    assert [r.path for r in as_stripe.requests] == [
        "/v1/customers",
        "/v1/customers/cus_7",
        "/v1/customers",
    ]
    assert RemoteObject.objects.get().remote_id == "cus_8"


@pytest.mark.django_db(transaction=True)
def test_a_stripe_that_is_away_is_a_retry(as_stripe, as_in_production):
    as_stripe.close()
    Customer.objects.create(name="Ada")
    wait_for("failed")

    assert "send() raised APIConnectionError (dispatches.py, line" in Delivery.objects.get().reason
