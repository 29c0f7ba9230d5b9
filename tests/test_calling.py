"""``send()``: the site's own code makes the call, by a vendor's SDK."""

import json
import sys
import threading

import pytest
import requests
import responses as responses_library

from signal_dispatch import ModelDispatch, Outcome, Response, RetryPolicy
from signal_dispatch.backends.console import describe
from signal_dispatch.exceptions import EndpointNotMocked
from signal_dispatch.models import Attempt, Delivery, RemoteObject
from tests.deliveries import seconds_until
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Order, Tag
from tests.waiting import eventually

pytestmark = [pytest.mark.django_db, ONCE]


@pytest.fixture
def sdk(declare, settings):
    """Declare a dispatch whose ``send`` is given, for an endpoint without a URL."""
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"sdk": {}}

    def sdk(send, **attributes):
        defaults = {
            "endpoint": "sdk",
            "send": send,
            "retry": RetryPolicy([0, 0, 0], jitter=0),
        }
        return declare(Order, **defaults | attributes)

    return sdk


def only():
    return Delivery.objects.get()


def returns(value):
    return lambda self, delivery, session: value


def raises(error):
    def send(self, delivery, session):
        raise error

    return send


# What it is called with, and what it returns.


def test_it_gets_the_delivery_with_its_payload_and_the_endpoint_s_session(sdk, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"sdk": {"PROXIES": {"https": "http://proxy:1"}}}
    seen = []

    def send(self, delivery, session):
        seen.append((delivery.payload, delivery.path, delivery.method, delivery.event))
        assert (session.proxies, session.trust_env) == ({"https": "http://proxy:1"}, False)

    sdk(send, path="customers/{number}", method="PATCH")
    Order.objects.create(number="A-1")
    attempt()

    payload = {"number": "A-1", "status": "draft"}
    assert seen == [(payload, "customers/A-1", "PATCH", "created")]
    assert only().state == "delivered"


@pytest.mark.parametrize(
    ("returned", "status", "body"),
    [
        ({"id": "c-7"}, 200, b'{"id":"c-7"}'),
        ([1, None, "\xfc"], 200, '[1,null,"\xfc"]'.encode()),
        ("text", 200, b'"text"'),
        (0, 200, b"0"),
        (False, 200, b"false"),
        (None, 204, b""),
        (Outcome.delivered(), 204, b""),
        (Response(201, {"Content-Type": "text/plain"}, b"made"), 201, b"made"),
    ],
)
def test_what_it_returns_is_the_answer(sdk, returned, status, body):
    handled = []

    def handle_response(self, delivery, response):
        handled.append((response.status_code, response.content, response.ok))

    sdk(returns(returned), handle_response=handle_response)
    Order.objects.create(number="A-1")
    attempt()

    assert (only().state, only().last_status) == ("delivered", status)
    assert handled == [(status, body, True)]
    tried = Attempt.objects.get()
    assert (tried.status_code, bytes(tried.response_body)) == (status, body)


def test_a_response_of_requests_is_one_too(sdk, receiver, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"sdk": {}}
    receiver.reply(429, json={"no": 1}, headers={"Retry-After": "7"})

    sdk(
        lambda self, delivery, session: session.post(receiver.url, json=delivery.payload),
        retry=RetryPolicy([0, 0], jitter=0),
    )
    Order.objects.create(number="A-1")
    (settled,) = attempt()

    assert receiver.requests[0].json["number"] == "A-1"
    assert (only().state, only().last_status, settled.delay) == ("pending", 429, 7.0)
    assert json.loads(bytes(Attempt.objects.get().response_body)) == {"no": 1}


def test_the_remote_s_id_is_read_from_json(sdk):
    sdk(returns({"customer": {"id": "c-7"}}), remote_id="customer.id")
    Order.objects.create(number="A-1")
    attempt()

    assert RemoteObject.objects.get().remote_id == "c-7"


def test_get_outcome_judges_what_came_but_not_an_outcome(sdk):
    returned = [Outcome.retry(after=3, reason="Busy."), {"error": "no"}]
    asked = []

    def get_outcome(self, delivery, response):
        asked.append(response.json())
        return Outcome.rejected("It says no.")

    sdk(lambda self, delivery, session: returned.pop(0), get_outcome=get_outcome)
    Order.objects.create(number="A-1")
    (settled,) = attempt()
    assert (only().state, settled.delay, only().reason, asked) == ("pending", 3.0, "Busy.", [])
    attempt()

    assert (only().state, only().reason) == ("failed", "It says no.")
    assert asked == [{"error": "no"}]


def test_an_answer_that_breaks_off_while_it_is_read_is_an_error_of_the_call(sdk):
    class TornAnswer(requests.Response):
        status_code = 200

        @property
        def content(self):
            raise requests.ConnectionError("https://key@api.example.com/ broke off")

    sdk(returns(TornAnswer()))
    Order.objects.create(number="A-1")
    attempt()

    assert (only().state, only().error_class, only().attempts) == ("pending", "sdk", 1)
    assert "ConnectionError" in only().reason
    assert "key@" not in only().reason


def test_an_outcome_that_is_no_delivery_has_no_status(sdk):
    sdk(returns(Outcome.rejected("Unknown tenant.")))
    Order.objects.create(number="A-1")
    attempt()

    assert (only().state, only().last_status, only().reason) == ("failed", None, "Unknown tenant.")


def test_recreate_is_heeded(sdk):
    sdk(returns(Outcome.recreate()), on=["updated"])
    order = Order.objects.create(number="A-1")
    order.save()
    attempt()

    assert list(Delivery.objects.order_by("id").values_list("event", "state", "error_class")) == [
        ("updated", "failed", "lost"),
        ("created", "failed", "lost"),
    ]


def test_a_handler_that_raises_is_run_again_without_a_call(sdk):
    calls, broken = [], [True]

    def send(self, delivery, session):
        calls.append(delivery.uid)
        return Outcome.delivered()

    def handle_response(self, delivery, response):
        if broken:
            broken.clear()
            raise RuntimeError

    sdk(send, handle_response=handle_response)
    Order.objects.create(number="A-1")
    attempt()
    assert (only().state, only().error_class) == ("pending", "handler")
    attempt()

    assert (only().state, len(calls)) == ("delivered", 1)


@pytest.mark.parametrize("returned", [object(), {"a": object()}, float("nan")])
def test_what_is_no_answer_is_failed_for_the_call_was_made(sdk, returned):
    sdk(returns(returned))
    Order.objects.create(number="A-1")
    attempt()

    assert (only().state, only().error_class, only().attempts) == ("failed", "handler", 1)
    assert f"send() returned {type(returned).__name__}, which is no Response" in only().reason


@pytest.mark.parametrize("returned", [{"a": "x" * 100}, Response(200, {}, b"x" * 100)])
def test_an_answer_is_cut_as_any_other(sdk, settings, returned):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"sdk": {"MAX_RESPONSE_BYTES": 10}}
    sdk(returns(returned))
    Order.objects.create(number="A-1")
    attempt()

    tried = Attempt.objects.get()
    assert (only().state, tried.truncated, len(tried.response_body)) == ("delivered", True, 10)


# What it raises.


class VendorError(Exception):
    """As SDKs raise it: with the key in its words."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (VendorError("Bearer s3cret is wrong"), "send() raised VendorError (test_calling.py, line"),
        (requests.ConnectionError("https://x/?key=s3cret"), "send() raised ConnectionError ("),
        (ConnectionRefusedError(111, "Refused"), "send() raised ConnectionRefusedError: Refused ("),
        (requests.Timeout(110, "https://x/?key=s3cret"), "send() raised Timeout ("),
        (SystemExit("s3cret"), "send() called sys.exit()."),
        (NotImplementedError(), "send() raised NotImplementedError"),
    ],
)
def test_an_exception_is_an_attempt_and_says_nothing_secret(sdk, error, words, caplog):
    caplog.set_level("DEBUG")
    sdk(raises(error), retry=RetryPolicy([0, 0], jitter=0))
    Order.objects.create(number="A-1")
    attempt()

    assert (only().state, only().error_class, only().attempts) == ("pending", "sdk", 1)
    assert only().reason.startswith(f"shop.Told: {words}")
    attempt()
    assert only().state == "failed"
    told = " ".join(Attempt.objects.values_list("error", flat=True))
    assert "s3cret" not in told + only().reason + caplog.text


def test_the_line_is_the_site_s_own_however_deep_the_vendor_raised(sdk):
    def send(self, delivery, session):
        return json.loads("{")

    sdk(send)
    Order.objects.create(number="A-1")
    attempt()

    line = send.__code__.co_firstlineno + 1
    assert only().reason == (
        f"shop.Told: send() raised JSONDecodeError (test_calling.py, line {line})."
    )


def test_its_own_saves_make_no_call_and_others_count_a_hop(sdk, declare):
    def send(self, delivery, session):
        Order.objects.get().save()
        Tag.objects.create(name="seen")

    sdk(send)
    declare(Tag, name="shop.Tags", fields=["name"], delay=60)
    Order.objects.create(number="A-1")
    attempt()

    assert sorted(Delivery.objects.values_list("dispatch", "hops")) == [
        ("shop.Tags", 1),
        ("shop.Told", 0),
    ]


def test_the_default_makes_the_call_over_http_and_needs_a_url(declare, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"RETRY": {"delays": [0, 60]}}}
    declare(Order)
    Order.objects.create(number="A-1")
    attempt()

    assert (only().state, only().error_class) == ("pending", "connect")
    assert only().reason.startswith('SIGNAL_DISPATCH_ENDPOINTS["crm"]["URL"] is missing')
    with pytest.raises(NotImplementedError):
        ModelDispatch(Order).send(only(), requests.Session())


def test_a_session_that_can_t_be_made_is_told_without_a_host(sdk, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"sdk": {"SESSION": "tests.test_calling.broken"}}
    sdk(returns(None))
    Order.objects.create(number="A-1")
    attempt()

    assert only().reason == "The call to the endpoint failed: KeyError."


def broken():
    raise KeyError("s3cret")


def test_a_delivery_for_send_is_printed(sdk):
    sdk(returns(None), path="customers")
    Order.objects.create(number="A-1")

    assert describe(only()).startswith("POST customers  (sdk at ?)")


def test_inline_the_lease_is_as_long_as_send_may_take(sdk, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"sdk": {"SEND_LIMIT": 200}}
    left = []

    def send(self, delivery, session):
        left.append(seconds_until(only().available_at))

    sdk(send)
    Order.objects.create(number="A-1")
    attempt()

    assert left == [pytest.approx(200, abs=10)]


def tenant(key):
    return {"URL": "https://sdk.example/", "SEND_LIMIT": 250}


def test_the_limit_is_that_of_the_tenant_s_endpoint(sdk, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"sdk": {"RESOLVER": f"{__name__}.tenant"}}
    left = []

    def send(self, delivery, session):
        left.append(seconds_until(only().available_at))

    sdk(send, get_endpoint=lambda self, order, change: "sdk:42")
    Order.objects.create(number="A-1")
    attempt()

    assert left == [pytest.approx(250, abs=10)]


@pytest.mark.django_db(transaction=True)
def test_in_threads_it_ends_no_sender(sdk, as_in_production):
    threads = []

    def send(self, delivery, session):
        threads.append(threading.current_thread())
        sys.exit(delivery.payload["number"])

    sdk(send, retry=RetryPolicy([0], jitter=0))
    for number in "abc":
        Order.objects.create(number=number)

    eventually(lambda: Delivery.objects.filter(state="failed", error_class="sdk").count() == 3)
    assert all(t.is_alive() for t in threads)
    assert set(Delivery.objects.values_list("attempts", flat=True)) == {1}


# Under test.


def test_an_endpoint_that_is_not_mocked_is_not_called(sdk, deliveries):
    called = []
    sdk(lambda self, delivery, session: called.append(1))
    Order.objects.create(number="A-1")
    with pytest.raises(EndpointNotMocked, match="'sdk' would be called"):
        deliveries.send()

    assert called == []


def test_the_session_brings_its_calls_to_the_mock(sdk, deliveries, mock_endpoint):
    def send(self, delivery, session):
        return session.put(f"https://sdk.example/v1/{delivery.path}", json=delivery.payload)

    sdk(send, path="orders/{number}")
    mock = mock_endpoint("sdk")
    mock.reply(201, method="PUT", path="v1/orders/A-1")
    Order.objects.create(number="A-1")
    deliveries.send()

    assert (deliveries[0].state, deliveries[0].last_status) == ("delivered", 201)
    assert mock.calls[0].json == {"number": "A-1", "status": "draft"}


def test_a_call_that_no_reply_fits_is_told_through_the_sdk_s_own_error(
    sdk, deliveries, mock_endpoint
):
    def send(self, delivery, session):
        try:
            session.get("https://sdk.example/")
        except Exception as error:
            raise VendorError("unreachable") from error

    sdk(send)
    mock_endpoint("sdk")
    Order.objects.create(number="A-1")
    with pytest.raises(EndpointNotMocked, match="no reply fits"):
        deliveries.send()


def test_an_sdk_with_its_own_http_is_mocked_by_responses(sdk, deliveries, mock_endpoint):
    def send(self, delivery, session):
        return requests.post("https://sdk.example/", timeout=1).json()

    sdk(send, remote_id="id")
    mock_endpoint("sdk")
    Order.objects.create(number="A-1")
    with responses_library.RequestsMock() as mocked:
        mocked.post("https://sdk.example/", json={"id": 7})
        deliveries.send()

    assert deliveries[0].state == "delivered"


def test_responses_alone_mock_no_endpoint_without_a_url(sdk, deliveries):
    sdk(returns(None))
    Order.objects.create(number="A-1")
    with responses_library.RequestsMock(assert_all_requests_are_fired=False) as mocked:
        mocked.get("https://sdk.example/")
        with pytest.raises(EndpointNotMocked):
            deliveries.send()


def test_an_error_of_the_sdk_is_an_attempt_under_test_too(sdk, deliveries, mock_endpoint):
    mock_endpoint("sdk")
    sdk(raises(VendorError()))
    Order.objects.create(number="A-1")
    deliveries.send()

    assert (deliveries[0].state, deliveries[0].error_class) == ("pending", "sdk")
