"""The how-to on traces."""

import re

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from signal_dispatch import tracing
from signal_dispatch.opentelemetry import instrument, uninstrument
from tests.howto.pages import DOCS, Page
from tests.howto.pages_of_operations import run
from tests.once import ONCE
from tests.sending import attempt
from tests.shop.models import Order

pytestmark = [ONCE, pytest.mark.django_db]

NAME = "how-to/trace-calls"
PAGE = Page(NAME)
TASK = PAGE.block("traced")
INSTRUMENT = PAGE.block("instrument()")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


def test_a_task_hands_its_trace_on(declare, deliveries, mock_endpoint):
    declare(Order)
    crm = mock_endpoint("crm")
    crm.reply(200)
    run(TASK)["import_order"](Order(number="A-1"), TRACE)
    deliveries.send()

    assert deliveries[0].trace == TRACE
    assert crm.calls[0].headers["traceparent"] == TRACE


def test_instrument_and_back():
    run(INSTRUMENT)
    assert tracing.current_span is not None
    uninstrument()
    assert tracing.current_span is None


def test_a_span_has_what_the_table_names(declare, receiver):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(tracer_provider=provider)
    try:
        declare(Order)
        Order.objects.create(number="A-1")
        receiver.reply(503)
        attempt()
        attempt()
    finally:
        uninstrument()
        provider.shutdown()

    (row,) = re.findall(r"^\| a client span .+$", (DOCS / f"{NAME}.md").read_text(), re.MULTILINE)
    *told, prefix = re.findall(r"`([a-z_.]+)`", row)
    words = row.partition("and delivery")[2].partition(" below")[0].replace(" and ", ", ")
    own = ["delivery", *words.strip(", ").split(", ")]
    known = {name for span in exporter.get_finished_spans() for name in span.attributes}
    assert known == {*told, *(prefix + name for name in own)}
