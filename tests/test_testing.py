"""What a site's own tests can do: look at the outbox, send from it, mock endpoints, wait."""

import re
import sys
import threading
import unittest
from datetime import timedelta
from http import HTTPStatus

import pytest
import requests
import responses
from django.db import connections, transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from django.utils import timezone
from responses.registries import OrderedRegistry

from signal_dispatch import Event, ModelDispatch, Outcome, RetryPolicy, register
from signal_dispatch.backends import backends
from signal_dispatch.backends.threads import ThreadsBackend
from signal_dispatch.exceptions import (
    EndpointNotMocked,
    EndpointUnresolved,
    InvalidEndpointKey,
    UnknownEndpoint,
)
from signal_dispatch.models import Delivery, State
from signal_dispatch.registry import registry
from signal_dispatch.testing import (
    DispatchTestMixin,
    drain,
    mock_endpoint,
    real_network,
    recorded,
)
from tests.shop.models import Customer, Order

IN_MEMORY = connections["default"].settings_dict["NAME"] == ":memory:"
AT_ONCE = RetryPolicy(delays=[0, 0, 0], jitter=0)
ONCE = RetryPolicy(delays=[0])

with_threads = pytest.mark.skipif(IN_MEMORY, reason="threads are locked out of memory databases")


def sending_threads():
    return [t.name for t in threading.enumerate() if t.name.startswith("signal_dispatch")]


def paid(number="A-1", **values):
    return Order.objects.create(number=number, status="paid", **values)


@pytest.fixture
def order_to_crm():
    @register(Order)
    class OrderToCRM(ModelDispatch):
        endpoint = "crm"
        path = "orders/{number}"
        method = "PUT"
        on = [Event.CREATED, Event.UPDATED]
        fields = ["number", "status", "total", "customer__email"]
        when_changed = ["status", "total"]

        def should_send(self, order, change):
            return order.status != "draft"

        def handle_response(self, delivery, response):
            Order.objects.filter(pk=delivery.object_pk).update(crm_id=response.json()["id"])

    yield OrderToCRM
    registry.remove(OrderToCRM)


@pytest.fixture
def crm(mock_endpoint):
    return mock_endpoint("crm")


# The example of the design, as printed.


@pytest.mark.usefixtures("order_to_crm")
def test_paid_order_reaches_the_crm(db, deliveries, mock_endpoint):
    crm = mock_endpoint("crm")
    crm.reply(201, json={"id": "c-7"}, method="PUT", path="orders/A-1")

    order = Order.objects.create(number="A-1", status="paid", total=12)
    deliveries.send()

    order.refresh_from_db()
    assert order.crm_id == "c-7"
    assert crm.calls[0].json["status"] == "paid"


# Without a mock.


@pytest.mark.django_db
def test_without_a_mock_a_save_is_recorded_and_no_hook_is_registered(
    declare, deliveries, django_capture_on_commit_callbacks
):
    declare(Order)
    with django_capture_on_commit_callbacks(execute=True) as callbacks:
        paid()

    assert callbacks == []
    assert [d.state for d in deliveries] == [State.PENDING]


@pytest.mark.django_db(transaction=True)
def test_without_a_mock_a_commit_sends_nothing_and_starts_nothing(declare, deliveries):
    declare(Order)
    assert backends["default"].check() == [], "as 'manage.py check' asks it: now there is one"
    paid()

    drain()
    assert [(d.state, d.attempts) for d in deliveries] == [(State.PENDING, 0)]
    assert sending_threads() == []


@pytest.mark.django_db
def test_sending_to_an_endpoint_without_a_mock_says_how_to_mock_it(declare, deliveries):
    declare(Order)
    paid()

    with pytest.raises(EndpointNotMocked, match=re.escape('mock_endpoint("crm").reply(200)')):
        deliveries.send()
    assert (deliveries[0].state, deliveries[0].attempts) == (State.PENDING, 0)


@pytest.mark.django_db
def test_the_mock_of_one_endpoint_opens_no_other(declare, deliveries, mock_endpoint):
    declare(Order)
    paid()
    mock_endpoint("hubspot").reply(200)

    with pytest.raises(EndpointNotMocked, match="'crm' would be called"):
        deliveries.send()


@pytest.mark.django_db
def test_a_mock_that_is_closed_answers_no_more(declare, deliveries):
    declare(Order)
    with mock_endpoint("crm") as crm:
        crm.reply(200)
        paid("A-1")
        deliveries.send()
    paid("A-2")

    with pytest.raises(EndpointNotMocked):
        deliveries.send()
    assert len(crm.calls) == 1
    assert backends.released == 0


# The sequence of deliveries.


@pytest.mark.django_db
def test_deliveries_are_a_live_sequence_in_every_state(declare, deliveries, crm):
    declare(Order)
    assert not deliveries
    crm.reply(200, path="")
    for number in ("A-1", "A-2", "A-3"):
        paid(number)
    sent = deliveries[0]
    Delivery.objects.exclude(pk=sent.pk).update(state=State.CANCELLED, available_at=None)
    deliveries.send()

    assert [d.payload["number"] for d in deliveries] == ["A-1", "A-2", "A-3"]
    assert [d.state for d in deliveries[:2]] == [State.DELIVERED, State.CANCELLED]
    assert len(deliveries) == 3
    assert sent in deliveries
    assert "shop.Told created shop.order" in repr(deliveries)
    assert "(delivered)" in repr(deliveries)


@pytest.mark.django_db(databases=["default", "other"])
def test_deliveries_of_all_databases_are_seen_and_sent(declare, deliveries, crm):
    declare(Order)
    crm.reply(200)
    paid("A-1")
    Order.objects.using("other").create(number="B-1")

    assert [d.payload["number"] for d in deliveries] == ["A-1", "B-1"]
    assert len(deliveries.send()) == 2
    assert [d.state for d in deliveries] == [State.DELIVERED] * 2


def test_without_the_database_it_says_that_the_mark_is_missing(deliveries):
    with pytest.raises(RuntimeError, match="django_db"):
        len(deliveries)


def test_a_test_case_without_databases_is_refused_as_by_django():
    class Simple(DispatchTestMixin, SimpleTestCase):
        def test(self):
            assert len(self.deliveries) == 0

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(Simple).run(result)
    assert "not allowed in SimpleTestCase" in result.failures[0][1]


@pytest.mark.django_db
def test_recorded_holds_what_the_block_recorded(declare, deliveries, crm):
    declare(Order)
    crm.reply(200)
    paid("A-1")
    with recorded() as inside:
        assert len(inside) == 0
        order = paid("A-2")
        order.status = "sent"
        order.save()
    paid("A-3")

    assert {d.payload["number"] for d in inside} == {"A-2"}
    assert {d.payload["number"] for d in inside.send()} == {"A-2"}
    assert [d.state for d in deliveries if d not in inside] == [State.PENDING] * 2


# Sending.


@pytest.mark.django_db
def test_send_makes_one_attempt_each_though_the_next_is_due_at_once(declare, deliveries, crm):
    declare(Order, retry=AT_ONCE)
    crm.fail(503)
    paid()

    assert [(d.state, d.attempts) for d in deliveries.send()] == [(State.PENDING, 1)]
    assert [(d.state, d.attempts) for d in deliveries.send()] == [(State.PENDING, 2)]
    assert deliveries[0].last_status == 503


@pytest.mark.django_db
def test_send_leaves_what_is_due_later(declare, deliveries, crm):
    declare(Order, retry=RetryPolicy(delays=[0, 600]))
    crm.fail(503)
    paid()
    deliveries.send()

    assert deliveries.send() == []
    assert len(crm.calls) == 1


@pytest.mark.django_db
def test_until_done_runs_through_the_retries_without_waiting(declare, deliveries, crm):
    declare(Order)
    crm.fail(503, times=1)
    crm.fail(requests.Timeout, times=2)
    crm.reply(200)
    paid()

    assert [(d.state, d.attempts) for d in deliveries.send(until_done=True)] == [("delivered", 4)]
    assert len(crm.calls) == 4


@pytest.mark.django_db
def test_until_done_ends_when_the_attempts_are_used_up(declare, deliveries, crm):
    failures = []

    class GivesUp(ModelDispatch):
        def handle_failure(self, delivery, attempt):
            failures.append(attempt.error)

    declare(Order, base=GivesUp, retry=RetryPolicy(delays=[0, 3600, 3600]))
    crm.fail(requests.ConnectionError("down"))
    paid()
    deliveries.send(until_done=True)

    assert [(d.state, d.attempts, d.error_class) for d in deliveries] == [("failed", 3, "connect")]
    assert len(failures) == 1


@pytest.mark.django_db
@pytest.mark.parametrize("until_done", [False, True])
def test_the_endpoint_of_a_tenant_is_mocked_and_its_resolver_is_asked(
    declare, deliveries, mock_endpoint, tenant, until_done
):
    shop, other = mock_endpoint("tenant:42"), mock_endpoint("tenant:7")
    shop.reply(200)
    declare(Order, path="orders", get_endpoint=lambda *args: ["tenant:42", "tenant:7"])
    tenant.come("42", HEADERS={"Authorization": "Bearer t0ken"})
    paid()
    deliveries.send(until_done=until_done)

    assert [(d.endpoint, d.state, d.attempts) for d in deliveries] == [
        ("tenant:42", "delivered", 1),
        ("tenant:7", "pending", 0),
    ]
    assert deliveries[1].error_class == "gone"
    assert [(c.path, c.headers["Authorization"]) for c in shop.calls] == [
        ("orders", "Bearer t0ken")
    ]
    assert (repr(shop), other.calls) == ("<EndpointMock 'tenant:42', 1 calls>", [])

    tenant.come("7")
    other.reply(200)
    Delivery.objects.update(available_at=timezone.now() - timedelta(days=1))
    deliveries.send()
    assert [d.state for d in deliveries] == ["delivered"] * 2, "a test waits for nothing"


@pytest.mark.django_db
def test_a_tenant_that_is_not_mocked_is_told_with_its_key(declare, deliveries, tenant):
    tenant.come("42")
    declare(Order, endpoint="tenant:42")
    paid()
    with pytest.raises(EndpointNotMocked, match=r'mock_endpoint\("tenant:42"\)'):
        deliveries.send()


def test_an_entry_with_a_resolver_can_not_be_mocked_as_a_whole(mock_endpoint, tenant):
    with pytest.raises(InvalidEndpointKey, match='name one of them, as "tenant:42"'):
        mock_endpoint("tenant")
    assert backends.released == 0


@pytest.mark.django_db(transaction=True)
def test_one_send_empties_a_lane_of_three_commits(declare, deliveries, crm):
    declare(Order)
    backends.released -= 1  # as if the endpoint were mocked only now
    try:
        order = paid()
        for status in ("packed", "sent"):
            order.status = status
            order.save()
        assert [d.state for d in deliveries] == [State.PENDING, State.WAITING, State.WAITING]
    finally:
        backends.released += 1
    crm.reply(200)

    assert len(deliveries.send()) == 3
    assert [call.json["status"] for call in crm.calls] == ["paid", "packed", "sent"]


@pytest.mark.django_db(transaction=True)
def test_who_waits_behind_a_deleted_delivery_is_sent(declare, deliveries, crm):
    declare(Order)
    crm.reply(200)
    backends.released -= 1
    try:
        order = paid()
        order.status = "packed"
        order.save()
    finally:
        backends.released += 1
    deliveries[0].delete()

    assert [d.state for d in deliveries.send()] == [State.DELIVERED]


@pytest.mark.django_db
def test_what_a_hook_records_is_sent_too(declare, deliveries, crm):
    class MakesCustomer(ModelDispatch):
        def handle_response(self, delivery, response):
            Customer.objects.create(name="made")

    declare(Order, base=MakesCustomer)
    declare(Customer, name="shop.Customer", fields=["name"])
    crm.reply(200)
    paid()
    deliveries.send()

    assert [call.json.get("name") for call in crm.calls] == [None, "made"]


@pytest.mark.django_db
@pytest.mark.parametrize("hook", ["handle_response", "get_outcome", "handle_failure"])
def test_errors_of_hooks_raise_and_the_delivery_stays(declare, deliveries, crm, hook):
    def broken(self, delivery, answer):
        raise LookupError(hook)

    declare(Order, base=type("Broken", (ModelDispatch,), {hook: broken}))
    crm.reply(400 if hook == "handle_failure" else 200)
    paid()

    with pytest.raises(LookupError, match=hook):
        deliveries.send()
    assert (deliveries[0].state, deliveries[0].held_by) == (State.PENDING, "")
    with pytest.raises(LookupError, match=hook):
        deliveries.send()


@pytest.mark.django_db
def test_a_row_of_another_environment_is_not_sent(declare, deliveries, settings, crm):
    declare(Order)
    crm.reply(200)
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "production"
    paid()
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"

    assert deliveries.send(until_done=True) == []
    assert crm.calls == []


# Replies.


@pytest.fixture
def call(declare, deliveries):
    """Make one call with a method, a path and a query, and return its status."""

    def call(method="POST", path="", **attributes):
        made = declare(Order, method=method, path=path, retry=ONCE, **attributes)
        try:
            paid(f"A-{Order.objects.count()}")
            return deliveries.send()[-1].last_status
        finally:
            registry.remove(made)

    return call


@pytest.mark.django_db
def test_replies_are_given_in_order_and_the_last_one_repeats(call, crm):
    crm.reply(200)
    crm.reply(202)

    assert [call(), call(), call()] == [200, 202, 202]


@pytest.mark.django_db
def test_replies_match_method_and_path(call, crm):
    crm.reply(201, method="post")
    crm.reply(202, path="orders/7")
    crm.reply(204, method="DELETE", path="/orders/8")

    assert call("POST", "orders") == 201
    assert call("PUT", "orders/7") == 202
    assert call("DELETE", "orders/8") == 204


@pytest.mark.django_db
def test_a_call_without_a_fitting_reply_says_what_came_and_what_there_is(call, crm):
    crm.reply(201, method="POST", path="orders")
    crm.fail(requests.Timeout, times=3, path="slow")

    with pytest.raises(EndpointNotMocked) as caught:
        call("PUT", "orders/7{?q}", fields=(), base=_with_query("a b"))
    message = str(caught.value)
    assert "Endpoint 'crm' was called with PUT orders/7?q=a+b, and no reply fits." in message
    assert "Replies: POST orders -> 201; any method slow -> Timeout()." in message
    assert "reply(200, method='PUT', path='orders/7')" in message
    assert crm.calls == []


def _with_query(value):
    class WithQuery(ModelDispatch):
        def get_path_values(self, instance, change):
            return {"q": value}

    return WithQuery


@pytest.mark.django_db
def test_a_mock_without_replies_says_so(call, crm):
    with pytest.raises(EndpointNotMocked, match=r"POST \(no path\), and no reply fits. .* none"):
        call()


@pytest.mark.django_db
def test_counted_failures_are_used_up(call, crm):
    crm.fail(500, times=2)

    assert [call(), call()] == [500, 500]
    with pytest.raises(EndpointNotMocked, match="every reply that fits is used up"):
        call()


@pytest.mark.django_db
def test_a_reply_repeats_after_counted_failures(call, crm):
    crm.reply(200)
    crm.fail(500, times=1)

    assert [call(), call(), call()] == [200, 500, 200]


@pytest.mark.django_db
def test_a_failure_without_a_count_is_for_ever(call, crm):
    crm.fail(500, method="POST", path="x")
    crm.reply(200)

    assert [call(path="x"), call(path="x"), call(path="y")] == [500, 500, 200]


@pytest.mark.django_db
@pytest.mark.parametrize("error", [requests.ConnectTimeout, requests.ConnectionError("down")])
def test_an_exception_stands_for_a_call_without_an_answer(call, crm, deliveries, error):
    crm.fail(error)

    assert call() is None
    assert deliveries[0].error_class in ("timeout", "connect")
    assert len(crm.calls) == 1


@pytest.mark.django_db
def test_the_query_is_ignored_unless_it_is_given(call, crm):
    crm.reply(200, path="geo", query={"q": "Oslo"})
    crm.reply(404, path="geo")

    ask = {"method": "GET", "path": "geo{?q}", "fields": ()}
    assert call(**ask, base=_with_query("Oslo")) == 200
    assert call(**ask, base=_with_query("Bonn")) == 404
    assert crm.calls[0].query == {"q": "Oslo"}


@pytest.mark.django_db
def test_lists_and_numbers_in_a_query_are_compared_as_text(call, crm, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": "https://crm.example.com/", "QUERY": {"key": "secret"}}
    }
    crm.reply(200, query={"q": [1, 2]})

    assert call("GET", "geo{?q*}", fields=(), base=_with_query([1, 2])) == 200
    assert crm.calls[0].query == {"q": ["1", "2"], "key": "secret"}


@pytest.mark.django_db
@pytest.mark.parametrize(
    "url",
    [
        "https://crm.example.com",
        "https://crm.example.com/",
        "http://CRM.example.com:8080/api/v1",
        "https://crm.example.com/a%20b/?tenant=7",
        "https://crm.example.com/ü/",
    ],
)
def test_paths_are_relative_to_any_url_and_encoded(call, mock_endpoint, settings, url):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": url}}
    crm = mock_endpoint("crm")
    crm.reply(200, path="")
    crm.reply(201, path="orders/a%2Fb%20%C3%BC")

    assert call() == 200
    assert call(path="orders/{q}", base=_with_query("a/b ü")) == 201
    assert [c.path for c in crm.calls] == ["", "orders/a%2Fb%20%C3%BC"]


@pytest.mark.django_db
def test_a_call_tells_all_that_was_sent(call, crm, deliveries):
    crm.reply(200)
    call("PUT", "orders/{number}", encoding="form", fields=["number"])

    (came,) = crm.calls
    assert (came.method, came.path, came.body) == ("PUT", "orders/A-0", b"number=A-0")
    assert came.headers["authorization"] == "Bearer t0ken"
    assert came.headers["Idempotency-Key"] == str(deliveries[0].uid)
    with pytest.raises(ValueError, match="Expecting value"):
        came.json  # noqa: B018 - it raises
    assert repr(crm) == "<EndpointMock 'crm', 1 calls>"


@pytest.mark.django_db
def test_a_get_has_an_empty_body(call, crm):
    crm.reply(200)
    call("GET", fields=())

    assert crm.calls[0].body == b""


@pytest.mark.django_db
def test_a_reply_carries_body_and_headers(declare, deliveries, crm):
    seen = []

    class Looks(ModelDispatch):
        def handle_response(self, delivery, response):
            seen.append((response.text, response.headers["X-Rate"]))

    declare(Order, base=Looks)
    crm.reply(200, body="grün", headers={"X-Rate": "9"})
    paid()
    deliveries.send()

    assert seen == [("grün", "9")]


@pytest.mark.django_db
def test_retry_after_of_a_reply_is_obeyed(declare, deliveries, crm):
    declare(Order, retry=AT_ONCE)
    crm.reply(429, headers={"Retry-After": "120"})
    crm.reply(200)
    paid()

    assert [d.attempts for d in deliveries.send()] == [1]
    assert deliveries.send() == []
    assert [d.state for d in deliveries.send(until_done=True)] == [State.DELIVERED]


@pytest.mark.parametrize(
    ("tell", "error", "message"),
    [
        (lambda crm: crm.reply(json={}, body="x"), ValueError, "either 'json' or 'body'"),
        (lambda crm: crm.reply(path="orders?q=1"), ValueError, "give it as query="),
        (lambda crm: crm.reply("201"), TypeError, "a status such as 201, not '201'"),
        (lambda crm: crm.reply(status=True), TypeError, "a status such as 201, not True"),
        (lambda crm: crm.reply(2010), ValueError, "three digits, such as 201, and 2010 has not"),
        (lambda crm: crm.reply(-200), ValueError, "three digits"),
        (lambda crm: crm.fail("down"), TypeError, "a status or an exception, not 'down'"),
        (lambda crm: crm.fail(failure=False), TypeError, "a status or an exception, not False"),
        (lambda crm: crm.fail(200), ValueError, r"200 is no failure: say reply\(200\)\."),
        (lambda crm: crm.fail(299), ValueError, "299 is no failure"),
        (lambda crm: crm.fail(99), ValueError, "three digits, such as 201, and 99 has not"),
        (lambda crm: crm.fail(503, times=0), ValueError, "at least 1, or None for ever"),
        (lambda crm: crm.fail(503, times=True), ValueError, "at least 1, or None for ever"),
        (lambda crm: crm.fail(503, times="2"), ValueError, "at least 1, or None for ever"),
    ],
)
def test_a_reply_that_makes_no_sense_is_refused(crm, tell, error, message):
    with pytest.raises(error, match=message):
        tell(crm)


@pytest.mark.django_db
def test_the_statuses_of_the_standard_library_are_taken(call, crm):
    crm.fail(HTTPStatus.SERVICE_UNAVAILABLE, times=1)
    crm.reply(HTTPStatus.CREATED)

    assert [call(), call()] == [503, 201]


def test_an_unknown_endpoint_can_not_be_mocked(mock_endpoint):
    with pytest.raises(UnknownEndpoint, match="Did you mean 'crm'"):
        mock_endpoint("crn")
    assert backends.released == 0


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "signal_dispatch.mocking", raising=False)
    monkeypatch.delattr("signal_dispatch.mocking", raising=False)
    monkeypatch.setitem(sys.modules, "responses", None)

    with (
        pytest.raises(ModuleNotFoundError, match=r"django-signal-dispatch\[testing\]"),
        mock_endpoint("crm"),
    ):
        pass


def test_an_error_inside_of_the_library_stays_as_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, "signal_dispatch.mocking", None)

    with (
        pytest.raises(ModuleNotFoundError, match=r"signal_dispatch\.mocking"),
        mock_endpoint("crm"),
    ):
        pass


@pytest.mark.django_db
def test_the_inner_mock_of_an_endpoint_answers(call):
    with mock_endpoint("crm") as outer, mock_endpoint("crm") as inner:
        inner.reply(201)
        assert call() == 201
    assert (len(outer.calls), len(inner.calls)) == (0, 1)


def test_the_fixture_gives_the_same_mock_for_an_alias(mock_endpoint):
    assert mock_endpoint("crm") is mock_endpoint("crm")
    assert mock_endpoint("crm") is not mock_endpoint("hubspot")


# Beside the user's own mocks.

ELSEWHERE = "https://elsewhere.example.com/"


@pytest.mark.django_db
@responses.activate
def test_mocks_of_the_users_own_live_beside_ours(call, crm):
    crm.reply(201)
    responses.get(ELSEWHERE, json={"own": True})
    responses.post("https://crm.example.com/api/", status=500)

    assert call() == 201
    assert requests.get(ELSEWHERE, timeout=1).json() == {"own": True}
    responses.reset()
    assert call() == 201
    assert len(crm.calls) == 2
    with pytest.raises(requests.ConnectionError, match="refused by Responses"):
        requests.get(ELSEWHERE, timeout=1)


@pytest.mark.django_db
@responses.activate
def test_an_endpoint_may_be_mocked_with_responses_alone(order_to_crm, deliveries):
    responses.put("https://crm.example.com/api/orders/A-1", status=201, json={"id": "c-7"})
    order = paid()
    deliveries.send()

    order.refresh_from_db()
    assert order.crm_id == "c-7"
    assert responses.calls[0].request.headers["Authorization"] == "Bearer t0ken"


@pytest.mark.django_db
@responses.activate
def test_responses_for_somebody_else_mock_no_endpoint(order_to_crm, deliveries):
    responses.get(ELSEWHERE)
    paid()

    with pytest.raises(EndpointNotMocked, match="does not mock it"):
        deliveries.send()


@pytest.mark.django_db
def test_mocks_begin_and_end_in_any_order(call):
    responses.start()
    try:
        with mock_endpoint("crm") as crm:
            crm.reply(201)
            responses.stop()
            assert call() == 201
            responses.start()
        responses.get(ELSEWHERE, body="own")
        assert requests.get(ELSEWHERE, timeout=1).text == "own"
    finally:
        responses.stop()
        responses.reset()
    assert len(crm.calls) == 1


@pytest.mark.django_db
@responses.activate(registry=OrderedRegistry, assert_all_requests_are_fired=True)
def test_a_strict_registry_of_the_users_own_is_left_alone(call, crm):
    crm.reply(201)
    responses.get(ELSEWHERE, body="first")

    assert call() == 201
    assert requests.get(ELSEWHERE, timeout=1).text == "first"


@pytest.mark.django_db
def test_another_mock_object_of_responses_does_not_get_our_calls(call, crm):
    crm.reply(201)
    with responses.RequestsMock() as own:
        own.get(ELSEWHERE, body="own")
        assert call() == 201
        assert requests.get(ELSEWHERE, timeout=1).text == "own"
        assert len(own.calls) == 1


@pytest.mark.django_db
def test_a_session_of_the_sites_own_is_mocked_too(call, crm, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": "https://crm.example.com/", "SESSION": "tests.test_testing.own_session"}
    }
    crm.reply(201)

    assert call() == 201
    assert crm.calls[0].headers["X-Own"] == "yes"


def own_session():
    session = requests.Session()
    session.headers["X-Own"] = "yes"
    session.mount("https://crm.", requests.adapters.HTTPAdapter())
    return session


# Hooks that run inside of a test's transaction.


@pytest.mark.django_db
def test_captured_hooks_deliver_inline(
    declare, deliveries, crm, django_capture_on_commit_callbacks
):
    threads = set()

    class Notes(ModelDispatch):
        def handle_response(self, delivery, response):
            threads.add(threading.current_thread())

    declare(Order, base=Notes)
    crm.reply(200)
    with django_capture_on_commit_callbacks(execute=True):
        order = paid()
        assert deliveries[0].state == State.PENDING

    assert [d.state for d in deliveries] == [State.DELIVERED]
    with django_capture_on_commit_callbacks(execute=True):
        order.status = "sent"
        order.save()
    assert [d.state for d in deliveries] == [State.DELIVERED] * 2
    assert threads == {threading.current_thread()}
    assert sending_threads() == []


@pytest.mark.django_db
def test_captured_hooks_ask_a_resolver_anew(
    declare, deliveries, mock_endpoint, tenant, django_capture_on_commit_callbacks
):
    mock_endpoint("tenant:42").reply(200)
    declare(Order, endpoint="tenant:42")
    for number in range(2):
        with django_capture_on_commit_callbacks(execute=True):
            paid(f"A-{number}")
        tenant.come("42")

    assert [d.state for d in deliveries] == [State.PENDING, State.DELIVERED]
    assert tenant.asked == ["42", "42"]


@pytest.mark.django_db
def test_errors_of_hooks_reach_whoever_runs_the_captured_ones(
    declare, crm, django_capture_on_commit_callbacks
):
    class Broken(ModelDispatch):
        def handle_response(self, delivery, response):
            raise LookupError("broken")

    declare(Order, base=Broken)
    crm.reply(200)
    with (
        pytest.raises(LookupError, match="broken"),
        django_capture_on_commit_callbacks(execute=True),
    ):
        paid()


@pytest.mark.django_db
def test_a_mock_closed_before_the_hooks_run_sends_nothing(
    declare, deliveries, django_capture_on_commit_callbacks
):
    declare(Order)
    with django_capture_on_commit_callbacks(execute=True) as callbacks:  # noqa: SIM117
        with mock_endpoint("crm") as crm:
            paid()

    assert len(callbacks) == 1
    assert crm.calls == []
    assert deliveries[0].state == State.PENDING


# Real commits.


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("order_to_crm")
def test_with_a_mock_real_commits_are_sent_and_drain_waits(deliveries, crm):
    crm.reply(201, json={"id": "c-7"})
    orders = [paid(f"A-{number}") for number in range(5)]
    orders[0].total = 9
    orders[0].save()

    drain()
    assert [d.state for d in deliveries] == [State.DELIVERED] * 6
    assert set(Order.objects.values_list("crm_id", flat=True)) == {"c-7"}
    assert len(crm.calls) == 6
    assert sending_threads() == []


@with_threads
@pytest.mark.django_db(transaction=True)
def test_real_commits_are_sent_by_the_configured_backend(declare, crm):
    names = []

    class Notes(ModelDispatch):
        def handle_response(self, delivery, response):
            names.append(threading.current_thread().name)

    declare(Order, base=Notes)
    crm.reply(200)
    paid()
    drain()

    assert [name.startswith("signal_dispatch-sender") for name in names] == [True]


@with_threads
@pytest.mark.django_db(transaction=True)
def test_a_resolver_that_fails_in_a_thread_is_raised_by_drain(declare, mock_endpoint, tenant):
    mock_endpoint("tenant:42")
    tenant.answers["42"] = ZeroDivisionError()
    declare(Order, endpoint="tenant:42")
    paid()
    with pytest.raises(EndpointUnresolved, match="raised ZeroDivisionError"):
        drain()
    assert tenant.threads == ["signal_dispatch-sender-1"]


@with_threads
@pytest.mark.django_db(transaction=True)
def test_a_call_without_a_reply_is_raised_by_drain(declare, crm):
    declare(Order)
    paid()

    with pytest.raises(EndpointNotMocked, match="no reply fits"):
        drain()
    assert sending_threads() == []


@with_threads
@pytest.mark.django_db(transaction=True)
def test_what_a_thread_met_is_raised_where_the_mock_ends(declare):
    declare(Order)
    with pytest.raises(EndpointNotMocked, match="no reply fits"), mock_endpoint("crm"):
        paid()
        backends["default"]._worker.finish(10)
    assert sending_threads() == []


@with_threads
@pytest.mark.django_db(transaction=True)
def test_what_a_thread_met_is_noted_on_the_failure_of_the_test(declare):
    declare(Order)
    with pytest.raises(ZeroDivisionError) as caught, mock_endpoint("crm"):
        paid()
        backends["default"]._worker.finish(10)
        raise ZeroDivisionError
    assert "a sending thread met EndpointNotMocked" in caught.value.__notes__[0]


@with_threads
@pytest.mark.django_db(transaction=True)
def test_drain_gives_up_in_time_and_ends_the_threads(declare, crm, monkeypatch):
    go_on = threading.Event()

    class Hangs(ModelDispatch):
        def get_outcome(self, delivery, response):
            go_on.wait(30)
            return Outcome.delivered()

    def stop(self, *args):
        go_on.set()
        real_stop(self, *args)

    real_stop = ThreadsBackend.stop
    monkeypatch.setattr(ThreadsBackend, "stop", stop)
    declare(Order, base=Hangs)
    crm.reply(200)
    paid()

    with pytest.raises(TimeoutError, match="1 in flight"):
        drain(timeout=0.3)
    assert sending_threads() == []


@with_threads
@pytest.mark.django_db(transaction=True)
def test_the_end_of_a_mock_ends_the_threads_though_another_is_active(declare):
    declare(Order)
    with mock_endpoint("hubspot"):
        with mock_endpoint("crm") as crm:
            crm.reply(200)
            paid()
            assert sending_threads()
        assert sending_threads() == []


@pytest.mark.django_db
def test_drain_says_at_once_that_nothing_is_committed_in_a_test_case(
    declare, mock_endpoint, monkeypatch
):
    monkeypatch.setattr(ThreadsBackend, "drain", lambda *args: pytest.fail("it would wait"))
    declare(Order)
    paid("A-0")
    drain()  # without a mock it has nothing to wait for, here as elsewhere
    mock_endpoint("crm").reply(200)
    paid()

    with pytest.raises(TimeoutError, match=r"real commits, .* call deliveries.send\(\) instead"):
        drain()
    assert sending_threads() == []


@pytest.mark.django_db
def test_drain_has_nothing_to_wait_for_where_captured_hooks_sent_all(
    declare, deliveries, crm, django_capture_on_commit_callbacks, monkeypatch
):
    monkeypatch.setattr(ThreadsBackend, "drain", lambda *args: pytest.fail("it would wait"))
    backends["default"].check()  # now there is one
    declare(Order)
    crm.reply(200)
    with django_capture_on_commit_callbacks(execute=True):
        paid()
    drain()

    assert [d.state for d in deliveries] == [State.DELIVERED]


@pytest.mark.django_db
def test_drain_asks_nothing_of_a_transaction_that_is_broken(declare):
    declare(Order)
    paid()
    with transaction.atomic():
        transaction.set_rollback(True)
        drain()


def test_drain_needs_no_database_where_the_test_has_none():
    drain()


# The real network.


@with_threads
@pytest.mark.django_db(transaction=True)
@pytest.mark.signal_dispatch_network
def test_the_marker_lets_everything_be_as_in_production(declare, deliveries, receiver):
    declare(Order)
    assert not backends.under_test
    paid()
    drain()

    assert [d.state for d in deliveries] == [State.DELIVERED]
    assert len(receiver.requests) == 1


@pytest.mark.django_db
def test_real_network_lifts_the_guard_for_a_block(declare, deliveries, receiver):
    declare(Order)
    paid()
    with real_network():
        assert [d.state for d in deliveries.send()] == [State.DELIVERED]

    paid("A-2")
    with pytest.raises(EndpointNotMocked):
        deliveries.send()
    assert len(receiver.requests) == 1


# Test cases of unittest.


@pytest.mark.usefixtures("order_to_crm")
class TestInATransaction(DispatchTestMixin, TestCase):
    def test_drain_is_refused(self):
        self.mock_endpoint("crm").reply(201, json={"id": "c-7"})
        paid()
        with pytest.raises(TimeoutError, match=r"self\.deliveries\.send\(\)"):
            drain()

    def test_deliveries_are_sent_by_hand(self):
        self.mock_endpoint("crm").reply(201, json={"id": "c-7"})
        order = paid()

        assert [d.state for d in self.deliveries.send()] == [State.DELIVERED]
        order.refresh_from_db()
        assert order.crm_id == "c-7"
        assert len(self.mock_endpoint("crm").calls) == 1

    def test_captured_hooks_deliver(self):
        self.mock_endpoint("crm").reply(201, json={"id": "c-7"})
        with self.captureOnCommitCallbacks(execute=True):
            paid()
        assert [d.state for d in self.deliveries] == [State.DELIVERED]

    def test_without_a_mock_captured_hooks_send_nothing(self):
        with self.captureOnCommitCallbacks(execute=True) as callbacks:
            paid()
        assert callbacks == []
        assert [d.state for d in self.deliveries] == [State.PENDING]


@pytest.mark.usefixtures("order_to_crm")
class TestWithRealCommits(DispatchTestMixin, TransactionTestCase):
    def test_commits_are_sent(self):
        self.mock_endpoint("crm").reply(201, json={"id": "c-7"})
        paid()
        drain()

        assert [d.state for d in self.deliveries] == [State.DELIVERED]
        assert sending_threads() == []


@with_threads
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("hook", ["handle_response", "get_outcome", "handle_failure"])
def test_errors_of_hooks_in_threads_are_raised_by_drain(declare, crm, deliveries, hook):
    def broken(self, delivery, answer):
        raise LookupError(hook)

    declare(Order, base=type("Broken", (ModelDispatch,), {hook: broken}))
    crm.reply(400 if hook == "handle_failure" else 200)
    paid()

    with pytest.raises(LookupError, match=hook):
        drain()
    assert f"{hook}() raised" in deliveries[0].reason
    assert sending_threads() == []
