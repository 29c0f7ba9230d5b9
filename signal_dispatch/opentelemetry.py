"""Tell OpenTelemetry of attempts and deliveries; needs ``django-signal-dispatch[opentelemetry]``.

A span for each attempt, named and described as HTTP clients do it (semantic conventions 1.27),
with a link to what saved. It holds nothing that may be a secret: no path, header or body, and no
``url.full``.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import signal_dispatch
from signal_dispatch import credentials, tracing
from signal_dispatch.calling import FILES
from signal_dispatch.endpoints import endpoints
from signal_dispatch.models import Attempt, Delivery
from signal_dispatch.registry import registry
from signal_dispatch.signals import attempt_finished, delivery_finished

Attributes = dict[str, str | int]

_UID: Final = "signal_dispatch.opentelemetry"
_SCHEMA: Final = "https://opentelemetry.io/schemas/1.27.0"
_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
)
# Error classes of attempts that ended before a call was made.
_UNCALLED: Final = frozenset({FILES, credentials.ERROR_CLASS, "internal"})
# As the conventions advise for this histogram, in seconds.
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

_propagator = TraceContextTextMapPropagator()


def instrument(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """Record spans and metrics from now on, by default with the global providers.

    What is saved while a span is current belongs to that span's trace.
    """
    uninstrument()
    recorder = _Recorder(tracer_provider, meter_provider)
    attempt_finished.connect(recorder.attempt_finished, weak=False, dispatch_uid=_UID)
    delivery_finished.connect(recorder.delivery_finished, weak=False, dispatch_uid=_UID)
    tracing.current_span = _current_span


def uninstrument() -> None:
    """Record nothing more; harmless where nothing was recorded."""
    attempt_finished.disconnect(dispatch_uid=_UID)
    delivery_finished.disconnect(dispatch_uid=_UID)
    if tracing.current_span is _current_span:
        tracing.current_span = None


class _Recorder:
    """Write down what the signals tell."""

    def __init__(
        self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        version = signal_dispatch.__version__
        meter = metrics.get_meter("signal_dispatch", version, meter_provider, _SCHEMA)
        self._tracer = trace.get_tracer("signal_dispatch", version, tracer_provider, _SCHEMA)
        self._durations = meter.create_histogram(
            "http.client.request.duration",
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._deliveries = meter.create_counter(
            "signal_dispatch.deliveries",
            unit="{delivery}",
            description="Deliveries that are finished, by state.",
        )

    def attempt_finished(self, delivery: Delivery, attempt: Attempt, **kwargs: Any) -> None:
        """Record a span with the times of the attempt, and how long a call took."""
        http, error = _http_attributes(delivery, attempt), _error_type(attempt)
        told: Attributes = http | ({"error.type": error} if error else {})
        began = int(attempt.started_at.timestamp() * 1e9)
        span = self._tracer.start_span(
            str(http.get("http.request.method", "send")).replace("_OTHER", "HTTP"),
            # A trace of its own: it may begin days after the request, which the link leads to.
            context=Context(),
            kind=SpanKind.CLIENT,
            attributes=told | _own_attributes(delivery, attempt),
            links=_links(delivery.trace),
            start_time=began,
        )
        if error:
            span.set_status(Status(StatusCode.ERROR))
        span.end(began + attempt.duration_ms * 1_000_000)
        if http and attempt.error_class not in _UNCALLED:
            self._durations.record(attempt.duration_ms / 1000, told)

    def delivery_finished(self, delivery: Delivery, **kwargs: Any) -> None:
        """Count the delivery."""
        attributes = {
            "signal_dispatch.state": str(delivery.state),
            "signal_dispatch.dispatch": delivery.dispatch,
            "signal_dispatch.endpoint": delivery.endpoint,
        }
        self._deliveries.add(1, attributes)


def _http_attributes(delivery: Delivery, attempt: Attempt) -> Attributes:
    """Return what metrics and spans say of the call; nothing where ``send()`` made it."""
    dispatch = registry.find(delivery.dispatch, delivery.model)
    if dispatch is None or dispatch.overrides("send"):
        return {}
    known = delivery.method in _METHODS
    told: Attributes = {"http.request.method": delivery.method if known else "_OTHER"}
    endpoint = endpoints.find(delivery.endpoint)
    if endpoint is not None and endpoint.url:
        url = urlsplit(endpoint.url)
        told["server.address"] = url.hostname or ""
        told["server.port"] = url.port or {"https": 443}.get(url.scheme, 80)
    if attempt.status_code is not None:
        told["http.response.status_code"] = attempt.status_code
    return told


def _own_attributes(delivery: Delivery, attempt: Attempt) -> Attributes:
    told: Attributes = {
        "signal_dispatch.delivery": delivery.pk,
        "signal_dispatch.dispatch": delivery.dispatch,
        "signal_dispatch.endpoint": delivery.endpoint,
        "signal_dispatch.event": delivery.event,
        "signal_dispatch.outcome": str(attempt.outcome),
    }
    if attempt.number > 1:
        told["http.request.resend_count"] = attempt.number - 1
    return told


def _error_type(attempt: Attempt) -> str:
    """Return what the call failed with: its status, or the attempt's error class."""
    if attempt.status_code is None:
        return "" if attempt.outcome == "delivered" else attempt.error_class or "_OTHER"
    return str(attempt.status_code) if attempt.status_code >= 400 else ""


def _links(traceparent: str) -> list[Link]:
    carrier: Mapping[str, str] = {"traceparent": traceparent}
    found = trace.get_current_span(_propagator.extract(carrier, Context())).get_span_context()
    return [Link(found)] if found.is_valid else []


def _current_span() -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent", "")
