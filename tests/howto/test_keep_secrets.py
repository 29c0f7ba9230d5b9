"""The how-to on secrets."""

import sys
from types import ModuleType, SimpleNamespace

import pytest

from signal_dispatch.models import Attempt, Delivery
from tests.howto.pages import Page
from tests.howto.pages_of_operations import run
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Customer, Order

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/keep-secrets")
VAULT = PAGE.block("vault.read")
SENSITIVE = PAGE.block("class CustomerToBank")
REDACT = PAGE.block("REDACT")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


@pytest.fixture
def crm(receiver, settings):
    """Give the endpoint of a block, at an address that answers."""

    def crm(block, **names):
        given = run(block, **names)["SIGNAL_DISPATCH_ENDPOINTS"]["crm"]
        settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": given | {"URL": receiver.url}}
        return receiver

    return crm


def test_the_vault_is_asked_at_each_attempt_and_nothing_is_kept(crm, declare, monkeypatch):
    keys = iter(["k3y-1", "k3y-2"])
    vault = ModuleType("shop.vault")
    vault.crm_secrets = lambda: [SECRET]
    monkeypatch.setitem(sys.modules, "shop.vault", vault)
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    receiver = crm(VAULT, vault=SimpleNamespace(read=lambda name: next(keys)))
    declare(Order)
    receiver.reply(503)
    Order.objects.create(number="A-1")
    attempt()
    attempt()

    requests = receiver.requests
    assert [request.headers["X-Key"] for request in requests] == ["k3y-1", "k3y-2"]
    assert all(request.headers["webhook-signature"] for request in requests)
    kept = str([list(Delivery.objects.values()), list(Attempt.objects.values())])
    assert "k3y" not in kept
    assert SECRET not in kept


def test_what_is_sensitive_is_sent_and_kept_masked(write, faults, deliveries, mock_endpoint):
    write(SENSITIVE)
    assert faults() == set()
    crm = mock_endpoint("crm")
    crm.reply(200)
    Customer.objects.create(name="Ada")
    deliveries.send()

    assert crm.calls[0].json["iban"].startswith("DE02")
    assert crm.calls[0].json["address"]["street"] == "Elm Street 1"
    assert deliveries[0].payload == {
        "name": "Ada",
        "iban": "[redacted]",
        "address": {"street": "[redacted]", "city": "Oslo"},
    }


def test_names_of_redact_are_masked_in_headers_and_json(crm, declare):
    receiver = crm(REDACT)
    declare(Order)
    receiver.reply(
        headers={"X-Session": "s3cret", "Set-Cookie": "s3cret"},
        json={"user": {"accessToken": "s3cret", "name": "Ada"}},
    )
    Order.objects.create(number="A-1")
    attempt()

    tried = Attempt.objects.get()
    assert "s3cret" not in str(tried.response_headers) + str(bytes(tried.response_body))
    assert b"Ada" in bytes(tried.response_body)
