"""Spans and metrics, with the SDK's exporters in memory."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from signal_dispatch import Outcome, RetryPolicy
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.opentelemetry import instrument, uninstrument
from signal_dispatch.tracing import current, traced
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Order

pytestmark = [pytest.mark.django_db, ONCE]

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collected:
    """What was exported."""

    def __init__(self):
        self.spans = InMemorySpanExporter()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.reader = InMemoryMetricReader()
        self.meter_provider = MeterProvider([self.reader])

    def points(self, name):
        """Return the data points of a metric, as ``[(attributes, point)]``."""
        data = self.reader.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [(dict(p.attributes), p) for metric in found for p in metric.data.data_points]

    def everything(self):
        """Return all of it as text."""
        data = self.reader.get_metrics_data()
        spans = [span.to_json() for span in self.spans.get_finished_spans()]
        return f"{spans} {data.to_json() if data else ''}"


@pytest.fixture
def collected():
    made = Collected()
    instrument(made.tracer_provider, made.meter_provider)
    yield made
    uninstrument()
    made.tracer_provider.shutdown()
    made.meter_provider.shutdown()


@pytest.fixture
def told(declare):
    def told(**attributes):
        return declare(Order, **{"retry": RetryPolicy([0, 0, 0], jitter=0)} | attributes)

    return told


def test_an_attempt_is_a_span_with_its_times(told, receiver, collected):
    told(method="PUT")
    Order.objects.create(number="A-1")
    receiver.reply(201)
    attempt()

    (span,) = collected.spans.get_finished_spans()
    tried, delivery = Attempt.objects.get(), Delivery.objects.get()
    assert (span.name, span.kind) == ("PUT", SpanKind.CLIENT)
    assert span.status.status_code == StatusCode.UNSET
    assert dict(span.attributes) == {
        "http.request.method": "PUT",
        "server.address": "127.0.0.1",
        "server.port": receiver.port,
        "http.response.status_code": 201,
        "signal_dispatch.delivery": delivery.pk,
        "signal_dispatch.dispatch": "shop.Told",
        "signal_dispatch.endpoint": "crm",
        "signal_dispatch.event": "created",
        "signal_dispatch.outcome": "delivered",
    }
    assert span.start_time == pytest.approx(tried.started_at.timestamp() * 1e9, abs=1000)
    assert span.end_time - span.start_time == tried.duration_ms * 1_000_000
    assert (span.links, span.parent) == ((), None)
    assert span.instrumentation_scope.name == "signal_dispatch"


def test_failures_and_repetitions_are_told(told, receiver, collected):
    told()
    Order.objects.create(number="A-1")
    receiver.reply(503)
    attempt()
    receiver.close()
    attempt()

    refused, unreached = collected.spans.get_finished_spans()
    assert refused.attributes["error.type"] == "503"
    assert "http.request.resend_count" not in refused.attributes
    assert unreached.attributes["error.type"] == "connect"
    assert unreached.attributes["http.request.resend_count"] == 1
    assert "http.response.status_code" not in unreached.attributes
    assert {span.status.status_code for span in (refused, unreached)} == {StatusCode.ERROR}


def test_an_answer_that_could_not_be_handled_is_no_failed_call(told, receiver, collected):
    def handle_response(self, delivery, response):
        raise RuntimeError

    told(handle_response=handle_response)
    Order.objects.create(number="A-1")
    attempt()

    (span,) = collected.spans.get_finished_spans()
    assert span.status.status_code == StatusCode.UNSET
    assert "error.type" not in span.attributes


def test_a_method_that_nobody_knows_is_not_named(told, receiver, collected):
    told(method="FROBNICATE")
    Order.objects.create(number="A-1")
    attempt()

    (span,) = collected.spans.get_finished_spans()
    assert (span.name, span.attributes["http.request.method"]) == ("HTTP", "_OTHER")


def test_a_span_links_to_the_request_that_saved(told, receiver, collected):
    told()
    with traced(TRACE):
        Order.objects.create(number="A-1")
    attempt()

    (span,) = collected.spans.get_finished_spans()
    (link,) = span.links
    assert f"{link.context.trace_id:x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert f"{link.context.span_id:016x}" == "00f067aa0ba902b7"
    assert link.context.is_remote
    assert span.context.trace_id != link.context.trace_id, "its trace is its own"


def test_a_current_span_is_what_saved(told, receiver, collected):
    told()
    tracer = collected.tracer_provider.get_tracer("site")
    with traced(TRACE), tracer.start_as_current_span("the view") as view:
        Order.objects.create(number="A-1")
        attempt()  # also where it is sent within the span, as the immediate backend does
    mine = view.get_span_context()

    written = f"00-{mine.trace_id:032x}-{mine.span_id:016x}-{mine.trace_flags:02x}"
    assert Delivery.objects.get().trace == written
    assert receiver.requests[0].headers["traceparent"] == Delivery.objects.get().trace
    (span,) = [s for s in collected.spans.get_finished_spans() if s.name == "POST"]
    assert span.links[0].context.span_id == mine.span_id
    assert span.parent is None


def test_durations_and_deliveries_are_counted(told, receiver, collected):
    told()
    Order.objects.create(number="A-1")
    receiver.reply(500)
    attempt()
    receiver.reply(200)
    attempt()

    server = {"server.address": "127.0.0.1", "server.port": receiver.port}
    durations = {
        p["http.response.status_code"]: (p, point)
        for p, point in collected.points("http.client.request.duration")
    }
    assert durations[200][0] == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        **server,
    }
    assert durations[500][0]["error.type"] == "500"
    assert [point.count for _, point in durations.values()] == [1, 1]
    milliseconds = sum(Attempt.objects.values_list("duration_ms", flat=True))
    assert sum(point.sum for _, point in durations.values()) == pytest.approx(milliseconds / 1000)
    assert [(a, p.value) for a, p in collected.points("signal_dispatch.deliveries")] == [
        (
            {
                "signal_dispatch.state": "delivered",
                "signal_dispatch.dispatch": "shop.Told",
                "signal_dispatch.endpoint": "crm",
            },
            1,
        )
    ]


@pytest.mark.parametrize("answer", [{"id": 1}, Outcome.retry(), None])
def test_a_call_by_send_is_a_span_but_no_http(told, receiver, collected, answer):
    told(send=lambda self, delivery, session: answer)
    Order.objects.create(number="A-1")
    attempt()

    (span,) = collected.spans.get_finished_spans()
    assert span.name == "send"
    assert not [name for name in span.attributes if name.startswith(("http.", "server."))]
    assert collected.points("http.client.request.duration") == []


def test_credentials_that_can_t_be_had_took_no_call(told, receiver, collected, settings):
    def vault():
        raise ConnectionRefusedError

    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": receiver.url, "HEADERS": vault}}
    told()
    Order.objects.create(number="A-1")
    attempt()

    (span,) = collected.spans.get_finished_spans()
    assert span.attributes["error.type"] == "credentials"
    assert collected.points("http.client.request.duration") == []


def test_files_that_can_t_be_had_took_no_call(told, receiver, collected):
    def get_files(self, delivery):
        raise FileNotFoundError

    told(get_files=get_files)
    Order.objects.create(number="A-1")
    attempt()

    (span,) = collected.spans.get_finished_spans()
    assert span.attributes["error.type"] == "files"
    assert collected.points("http.client.request.duration") == []


def test_an_endpoint_without_a_url_has_no_address(told, settings, collected):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {}}
    told()
    Order.objects.create(number="A-1")
    attempt()

    (span,) = collected.spans.get_finished_spans()
    assert span.attributes["error.type"] == "connect"
    assert "server.address" not in span.attributes


def test_nothing_secret_is_told(told, receiver, collected, settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {
            "URL": f"{receiver.url}hooks/s3cret-path?key=s3cret-key",
            "HEADERS": {"Authorization": "Bearer s3cret-token"},
            "QUERY": {"api_key": "s3cret-query"},
            "AUTH": ("user", "s3cret-password"),
        }
    }
    told(path="orders/{number}", handle_response=lambda self, delivery, response: 1 / 0)
    Order.objects.create(number="s3cret-number", status="s3cret-body")
    Order.objects.create(number="s3cret-other")
    receiver.play((500, {"X": "s3cret-header"}, b"s3cret-answer"), (200, {}, b"s3cret"))
    attempt()
    receiver.close()
    attempt()

    text = collected.everything()
    assert len(collected.spans.get_finished_spans()) >= 3
    assert "127.0.0.1" in text
    assert "s3cret" not in text


def test_it_can_be_switched_off_and_on_again(told, receiver, collected):
    told()
    instrument(collected.tracer_provider, collected.meter_provider)
    Order.objects.create(number="A-1")
    attempt()
    assert len(collected.spans.get_finished_spans()) == 1, "each attempt is told once"
    uninstrument()
    uninstrument()
    with collected.tracer_provider.get_tracer("site").start_as_current_span("later"):
        assert current() == ""
        Order.objects.create(number="A-2")
    attempt()

    assert len(collected.spans.get_finished_spans()) == 2
