"""What the how-to documents tell people to write does what they say."""

import base64
import json
import logging
import logging.config
import re
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from django import VERSION
from django.test import RequestFactory

import tests.shop as tests_shop
from signal_dispatch.alarms import Alarm, AlarmKind, sound
from signal_dispatch.backends import backends
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.registry import registry
from signal_dispatch.signals import alarm_raised
from signal_dispatch.signing import sign
from tests.howto import alarms, crm_login, receiving
from tests.howto.pages import shop_of_the_tests
from tests.once import ONCE
from tests.receiver import Receiver
from tests.shop import models, tenants
from tests.shop.models import Customer, Order, Subscription
from tests.waiting import eventually

pytestmark = ONCE

ROOT = Path(__file__).parents[2]


def blocks(name):
    page = ROOT / f"docs/how-to/{name}.md"
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    ("page", "file"),
    [("oauth2", "crm_login"), ("sign-and-rotate", "receiving"), ("alarms", "alarms")],
)
def test_document_prints_the_file_that_runs_here(page, file):
    assert (ROOT / f"tests/howto/{file}.py").read_text() in blocks(page)


# OAuth2.


class Authority:
    """Give out tokens, and say which of them hold."""

    def __init__(self, api):
        self.lock = threading.Lock()
        self.issued = 0
        self.holds = set()
        self.lasts = 3600
        self.asked = []
        self.tokens = Receiver(self.issue)
        self.refused = Counter()
        api.script = self.judge

    def issue(self, request):
        with self.lock:
            self.asked.append((request.headers["Authorization"], parse_qs(request.body.decode())))
            self.issued += 1
            self.holds = {f"t-{self.issued}"}
            answer = {"access_token": f"t-{self.issued}", "token_type": "Bearer"}
            answer["expires_in"] = self.lasts
            return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def judge(self, request):
        with self.lock:
            token = request.headers["Authorization"].removeprefix("Bearer ")
            if token in self.holds:
                return 200, {}, b"{}"
            self.refused[request.headers["Idempotency-Key"]] += 1
            return 401, {}, b"x" * 100_000

    def revoke(self):
        with self.lock:
            self.holds = set()


@pytest.fixture
def authority(receiver, settings):
    made = Authority(receiver)
    crm_login.auth.cache_clear()
    with made.tokens:
        settings.CRM_TOKEN_URL = made.tokens.url
        settings.CRM_CLIENT_ID = "shop"
        settings.CRM_CLIENT_SECRET = "s3cret"
        settings.SIGNAL_DISPATCH_ENDPOINTS = {
            "crm": {
                "URL": receiver.url,
                "AUTH": "tests.howto.crm_login.auth",
                "RETRY": {"delays": [0, 0.05, 0.05], "jitter": 0},
            }
        }
        yield made
        crm_login.auth()._client.close()
    crm_login.auth.cache_clear()


oauth2 = pytest.mark.usefixtures("transactional_db", "as_in_production")


def save(count, begin=0):
    for number in range(begin, begin + count):
        Order.objects.create(number=f"A-{number}")
    backends["default"].drain(30)
    eventually(lambda: not Delivery.objects.unfinished().exists(), 30)


@oauth2
def test_one_token_serves_all_threads(authority, receiver, declare):
    declare(Order)

    save(40)

    assert {request.headers["Authorization"] for request in receiver.requests} == {"Bearer t-1"}
    basic = "Basic " + base64.b64encode(b"shop:s3cret").decode()
    asked_with = {"grant_type": ["client_credentials"], "scope": ["orders.write"]}
    assert authority.asked == [(basic, asked_with)]
    assert set(Attempt.objects.values_list("outcome", "status_code")) == {("delivered", 200)}


@oauth2
def test_a_401_renews_the_token_once_for_all_within_the_attempt(authority, declare):
    declare(Order)
    save(5)

    authority.revoke()
    save(40, begin=5)

    assert authority.issued == 2
    assert set(authority.refused.values()) == {1}
    assert set(Attempt.objects.values_list("outcome", "number")) == {("delivered", 1)}
    assert Attempt.objects.count() == 45


@oauth2
def test_a_second_401_is_the_answer(authority, receiver, declare):
    declare(Order)
    receiver.script = lambda request: (401, {}, b"no")

    save(1)

    assert [r.headers["Authorization"] for r in receiver.requests] == ["Bearer t-1", "Bearer t-2"]
    made = Delivery.objects.get()
    assert (made.state, made.attempts, made.last_status) == ("failed", 1, 401)


@oauth2
def test_a_token_is_renewed_before_it_ends(authority, receiver, declare):
    declare(Order)
    authority.lasts = 30  # less than the minute before its end in which a new one is fetched

    save(1)
    save(1, begin=1)

    assert [r.headers["Authorization"] for r in receiver.requests] == ["Bearer t-1", "Bearer t-2"]
    assert not authority.refused


@oauth2
def test_without_a_token_the_call_is_tried_again(authority, receiver, declare):
    declare(Order)
    issue = authority.tokens.script
    authority.tokens.play((503, {}, b""), (200, {}, b"no JSON"))
    Order.objects.create(number="A-1")
    eventually(lambda: Attempt.objects.count() == 2)
    authority.tokens.script = issue
    eventually(lambda: not Delivery.objects.unfinished().exists())

    path = 'SIGNAL_DISPATCH_ENDPOINTS["crm"]["AUTH"] raised'
    assert list(Attempt.objects.order_by("number").values_list("error_class", "error")) == [
        ("credentials", f"{path} HTTPError."),
        ("credentials", f"{path} ValueError."),
        ("", ""),
    ]
    assert len(receiver.requests) == 1


# Signatures.

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def put(body, headers):
    request = RequestFactory().put("/orders/A-1", body, "application/json", headers=headers)
    return receiving.order(request, "A-1")


def test_receiver_takes_a_signed_message_once(settings, monkeypatch):
    stored = []
    monkeypatch.setattr(receiving, "store", lambda number, fields: stored.append((number, fields)))
    settings.SHOP_SECRETS = [SECRET]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    body = b'{"status": "paid"}'
    signed = sign([SECRET], id="m-1", timestamp=int(time.time()), body=body)

    assert [put(body, signed).status_code for _ in range(2)] == [204, 204]
    assert stored == [("A-1", {"status": "paid"})]
    refused = put(body + b" ", signed)
    assert refused.status_code == 401
    assert json.loads(refused.content) == {"error": "No signature in webhook-signature fits."}
    assert len(stored) == 1


# Alarms.


@pytest.fixture
def mailing(settings):
    """Connect the page's receiver; importing it did, for all tests that came after."""
    settings.ADMINS = [("Ada", "ada@example.com")] if VERSION < (6,) else ["ada@example.com"]
    alarm_raised.connect(alarms.mail_admins_of)
    yield
    alarm_raised.disconnect(alarms.mail_admins_of)


alarm_raised.disconnect(alarms.mail_admins_of)


@pytest.mark.usefixtures("mailing")
def test_admins_are_mailed_as_the_page_says(db, deliveries, mock_endpoint, mailoutbox, declare):
    declare(Order)
    names = {}
    with shop_of_the_tests():
        exec(compile(blocks("alarms")[-1], "alarms.md", "exec"), names)  # noqa: S102 - our own
    names["test_a_rejected_order_is_told_to_the_admins"](db, deliveries, mock_endpoint, mailoutbox)

    (mail,) = mailoutbox
    assert mail.to == ["ada@example.com"]
    assert "is failed for good." in mail.body


@oauth2
@pytest.mark.usefixtures("mailing")
def test_admins_are_mailed_by_the_threads_that_send(receiver, mailoutbox, declare):
    declare(Order)
    receiver.reply(400)

    save(5)

    eventually(lambda: mailoutbox)
    assert len(mailoutbox) == 1


def test_the_log_alone_mails_admins_as_the_page_says(settings, mailoutbox, mailing):
    names = {}
    exec(compile(blocks("alarms")[2], "alarms.md", "exec"), names)  # noqa: S102 - our own page
    alarm_raised.disconnect(alarms.mail_admins_of)
    logger = logging.getLogger("signal_dispatch")
    before = logger.handlers[:]
    logging.config.dictConfig(names["LOGGING"])
    try:
        alarm = Alarm(AlarmKind.ENDPOINT_FAILING, "crm", "", "default", "The endpoint fails.")
        sound(alarm, apart=False)
    finally:
        logger.handlers[:] = before
        logger.setLevel(logging.NOTSET)

    (mail,) = mailoutbox
    assert "The endpoint fails." in mail.subject


# Endpoints of tenants.


@pytest.fixture
def shop_with_tenants(monkeypatch, settings):
    """Do as the how-to says, with ``shop`` as the tests have it; give the names it makes."""
    configured, model, dispatch, resolver, cancelling, tests = blocks("tenants")
    assert model in Path(models.__file__).read_text()
    assert resolver.replace("from shop", "from tests.shop") == Path(tenants.__file__).read_text()
    for name, module in {"": tests_shop, ".models": models, ".tenants": tenants}.items():
        monkeypatch.setitem(sys.modules, f"shop{name}", module)
    names = {
        "__name__": "tests.shop.dispatches",
        "Customer": Customer,
        "cancel": lambda: exec(compile(cancelling, "tenants.md", "exec"), {}),  # noqa: S102
    }
    before = set(registry)
    for block in (configured, dispatch, tests):
        exec(compile(block, "tenants.md", "exec"), names)  # noqa: S102 - our own page
    settings.SIGNAL_DISPATCH_ENDPOINTS = names["SIGNAL_DISPATCH_ENDPOINTS"]
    yield names
    for made in set(registry) - before:
        registry.remove(type(made))


@pytest.mark.parametrize(
    "name",
    [
        "test_order_is_told_to_the_subscriber",
        "test_order_waits_for_a_subscriber_that_is_gone",
    ],
)
def test_tenants_are_told_as_the_page_says(shop_with_tenants, db, deliveries, mock_endpoint, name):
    shop_with_tenants[name](db, deliveries, mock_endpoint)


def test_each_subscription_gets_a_delivery_and_what_waits_can_be_cancelled(shop_with_tenants, db):
    customer = Customer.objects.create(name="Ada")
    for number in (41, 42, 43):
        Subscription.objects.create(pk=number, customer=customer, active=number != 43)
    Order.objects.create(number="A-1", customer=customer)
    Order.objects.create(number="A-2")
    told = Delivery.objects.order_by("endpoint").values_list("endpoint", "state")
    assert list(told) == [("tenant:41", "pending"), ("tenant:42", "pending")]

    shop_with_tenants["cancel"]()
    assert list(told.all()) == [("tenant:41", "pending"), ("tenant:42", "cancelled")]
