"""``traceparent``: what a request saved belongs to the trace that the request came with."""

import asyncio
import logging

import pytest
from asgiref.sync import SyncToAsync, ThreadSensitiveContext, sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.http import HttpResponse, StreamingHttpResponse
from django.test import RequestFactory
from django.urls import path

from signal_dispatch import Outcome, RetryPolicy, enqueue, tracing
from signal_dispatch.backends.console import describe
from signal_dispatch.models import Delivery
from signal_dispatch.registry import registry
from signal_dispatch.tracing import current, read, traced
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Customer, Order, Tag

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def sync_view(request):
    return HttpResponse(current())


async def async_view(request):
    return HttpResponse(f"{current()} {await sync_to_async(current)()}")


def streaming_view(request):
    return StreamingHttpResponse(f"{current()} " for _ in range(2))


def saving_view(request):
    Order.objects.create(number="A-1")
    return HttpResponse()


async def async_saving_view(request):
    await Order.objects.acreate(number="A-1")
    return HttpResponse()


urlpatterns = [
    path("sync/", sync_view),
    path("async/", async_view),
    path("stream/", streaming_view),
    path("save/", saving_view),
    path("asave/", async_saving_view),
]


@pytest.fixture(autouse=True)
def _site(settings, declare):
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = []
    settings.ALLOWED_HOSTS = ["*"]
    declare(Order)


def by_wsgi(url, traceparent=None):
    """Serve one request as a server does, on this thread."""
    headers = {} if traceparent is None else {"HTTP_TRACEPARENT": traceparent}
    environ = RequestFactory().get(url, **headers).environ
    response = WSGIHandler()(environ, lambda status, headers: None)
    body = b"".join(response)
    response.close()
    return body.decode()


async def by_asgi(url, *traceparents):
    """Serve one request as an asynchronous server does, in a task of its own."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "path": url,
        "query_string": b"",
        "headers": [(b"host", b"shop"), *((b"traceparent", t.encode()) for t in traceparents)],
    }
    served = ApplicationCommunicator(ASGIHandler(), scope)
    await served.send_input({"type": "http.request", "body": b""})
    body = b""
    while True:
        message = await served.receive_output(10)
        body += message.get("body", b"")
        if message["type"] == "http.response.body" and not message.get("more_body"):
            break
    await served.wait(10)
    return body.decode()


# What counts as one.


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (TRACE, TRACE),
        (f" {TRACE}\t", TRACE),
        (OTHER, OTHER),
        # A later version: what is known of it is passed on, in ours.
        (f"cc{TRACE[2:]}", TRACE),
        (f"cc{TRACE[2:-2]}fe-what-comes", f"{TRACE[:-2]}00"),
        (f"cc{TRACE[2:-2]}ff", TRACE),
        (f"cc{TRACE[2:]}x", ""),
        (f"{TRACE}-more", ""),
        (f"ff{TRACE[2:]}", ""),
        (TRACE.upper(), ""),
        (TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", "0" * 32), ""),
        (TRACE.replace("00f067aa0ba902b7", "0" * 16), ""),
        (f"{TRACE},{OTHER}", ""),
        (TRACE[:-1], ""),
        (TRACE.replace("-", "_"), ""),
        (TRACE.replace("4", "٤"), ""),
        (f"{TRACE}\n", ""),
        ("", ""),
        ("x" * 10_000, ""),
    ],
)
@ONCE
def test_a_traceparent_is_read_by_its_grammar(given, expected):
    assert read(given) == expected


@ONCE
def test_a_script_may_say_what_it_belongs_to():
    with traced(TRACE):
        assert current() == TRACE
        with traced("garbage"):
            assert current() == ""
        assert current() == TRACE
    assert current() == ""


@ONCE
def test_a_tracing_library_s_own_span_goes_first(monkeypatch):
    spans = ["", OTHER]
    monkeypatch.setattr(tracing, "current_span", spans.pop)
    with traced(TRACE):
        assert (current(), current()) == (OTHER, TRACE)


# Requests.


@pytest.mark.parametrize(("url", "times"), [("/sync/", 1), ("/async/", 2), ("/stream/", 2)])
@ONCE
def test_under_wsgi_views_have_the_trace_of_their_request(url, times):
    assert by_wsgi(url, TRACE).split() == [TRACE] * times
    assert by_wsgi(url).split() == [], "the next request on this thread brought none"
    assert by_wsgi(url, "garbage").split() == []
    assert current() == ""


@pytest.mark.parametrize(("url", "times"), [("/sync/", 1), ("/async/", 2)])
@ONCE
def test_under_asgi_views_have_the_trace_of_their_request(url, times):
    async def serve():
        return await asyncio.gather(
            by_asgi(url, TRACE), by_asgi(url), by_asgi(url, OTHER), by_asgi(url, TRACE, OTHER)
        )

    answers = [answer.split() for answer in asyncio.run(serve())]

    assert answers == [[TRACE] * times, [], [OTHER] * times, []]
    assert len(tracing._of_requests) == 0
    assert current() == ""


@ONCE
def test_what_tells_asynchronous_requests_apart_is_where_it_was():
    """asgiref's own; without it a request's trace would be lost, and nothing else."""

    async def serve():
        async with ThreadSensitiveContext() as context:
            return SyncToAsync.thread_sensitive_context.get(None) is context

    assert asyncio.run(serve())
    assert SyncToAsync.thread_sensitive_context.get(None) is None


@ONCE
def test_a_site_that_declares_nothing_has_no_part_in_its_requests(monkeypatch):
    ours = {"dispatch_uid": "signal_dispatch.tracing"}
    assert request_started.disconnect(**ours)
    for dispatch in list(registry):
        registry.remove(type(dispatch))

    assert not request_started.disconnect(**ours)
    assert not request_finished.disconnect(**ours)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("server", ["wsgi", "asgi"])
@pytest.mark.parametrize("url", ["/save/", "/asave/"])
def test_what_a_request_saves_is_recorded_with_its_trace(server, url):
    if server == "wsgi":
        by_wsgi(url, TRACE)
    else:
        asyncio.run(by_asgi(url, TRACE))

    assert Delivery.objects.get().trace == TRACE


# Deliveries.


@pytest.mark.django_db
def test_the_trace_goes_along_with_the_call_at_each_attempt(receiver):
    with traced(TRACE):
        Order.objects.create(number="A-1")
    receiver.reply(500)
    attempt()
    receiver.reply(200)
    attempt()

    assert [r.headers["traceparent"] for r in receiver.requests] == [TRACE, TRACE]
    assert f"\ntraceparent: {TRACE}\n" in describe(Delivery.objects.get())


@pytest.mark.django_db
def test_without_a_trace_no_header_is_sent(receiver):
    Order.objects.create(number="A-1")
    attempt()

    assert "traceparent" not in receiver.requests[0].headers
    assert "traceparent" not in describe(Delivery.objects.get())


@pytest.mark.django_db
def test_a_header_of_the_dispatch_s_own_stays(receiver, declare):
    declare(Tag, name="shop.Tags", fields=["name"], headers={"TraceParent": OTHER})
    with traced(TRACE):
        Tag.objects.create(name="a")
    attempt()

    assert receiver.requests[0].headers["traceparent"] == OTHER


@pytest.mark.django_db
def test_what_is_enqueued_belongs_to_the_trace_too(receiver):
    Order.objects.bulk_create([Order(number="A-1"), Order(number="A-2")])
    with traced(TRACE):
        enqueue(Order.objects.all())
        enqueue(Order.objects.get(number="A-1"))

    assert list(Delivery.objects.values_list("trace", flat=True)) == [TRACE] * 3


@pytest.mark.django_db
def test_what_a_hook_saves_belongs_to_the_trace_of_its_delivery(receiver, declare):
    def handle_response(self, delivery, response):
        Tag.objects.create(name="answered")

    declare(Customer, name="shop.Customers", fields=["name"], handle_response=handle_response)
    declare(Tag, name="shop.Tags", fields=["name"])
    with traced(TRACE):
        Customer.objects.create(name="Ada")
    attempt()

    assert dict(Delivery.objects.values_list("dispatch", "trace")) == {
        "shop.Customers": TRACE,
        "shop.Tags": TRACE,
    }


@pytest.mark.django_db
def test_what_is_created_anew_belongs_to_the_trace_of_what_was_lost(receiver, declare):
    def get_outcome(self, delivery, response):
        return Outcome.recreate() if response.status_code == 404 else None

    declare(Customer, name="shop.Customers", fields=["name"], get_outcome=get_outcome)
    with traced(TRACE):
        Customer.objects.create(name="Ada")
    receiver.script = lambda request: (404 if len(receiver.requests) < 2 else 201, {}, b"{}")
    attempt()

    assert [r.headers["traceparent"] for r in receiver.requests] == [TRACE, TRACE]


@pytest.mark.django_db
def test_log_lines_about_a_delivery_lead_to_its_trace(receiver, declare, caplog):
    def handle_response(self, delivery, response):
        raise RuntimeError

    declare(
        Customer,
        name="shop.Customers",
        fields=["name"],
        handle_response=handle_response,
        retry=RetryPolicy([0], jitter=0),
    )
    caplog.set_level(logging.INFO)
    with traced(TRACE):
        Customer.objects.create(name="Ada")
    attempt()

    told = [(r.action, r.delivery, r.trace) for r in caplog.records if r.name == "signal_dispatch"]
    pk = Delivery.objects.get().pk
    actions = ["handler_failed", "delivery_failed", "alarm"]
    assert told == [(action, pk, TRACE) for action in actions]
