"""What the console shows of a call."""

import io
import uuid

import pytest

from signal_dispatch import ModelDispatch
from signal_dispatch.backends.console import ConsoleBackend, describe
from signal_dispatch.models import Delivery
from signal_dispatch.queueing import Recorded
from tests import tenants
from tests.shop.models import Order

UID = uuid.UUID("0189f7ea-ae2c-7809-8aeb-b819cf5e9e7f")


def shown(**values):
    defaults = {"uid": UID, "endpoint": "crm", "method": "PUT", "path": "orders/7", "headers": {}}
    return describe(Delivery(**defaults | values)).splitlines()


def test_it_shows_the_call_and_none_of_the_endpoints_secrets():
    lines = shown(headers={"Content-Type": "application/json"}, body=b'{"a":1}')

    assert lines == [
        "PUT orders/7  (crm at crm.example.com)",
        "Content-Type: application/json",
        f"Idempotency-Key: {UID}",
        "",
        "{",
        '  "a": 1',
        "}",
        "-" * 79,
    ]


def test_it_shows_what_has_no_body_no_path_or_no_known_endpoint():
    assert shown(path="", endpoint="gone")[0] == "PUT /  (gone at ?)"
    assert len(shown()) == 3


def test_it_shows_where_the_resolver_says(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"tenant": {"RESOLVER": tenants.PATH}}
    tenants.answers["42"] = {"URL": "https://s3cret.example:8443/s3cret"}

    assert shown(endpoint="tenant:42")[0] == "PUT orders/7  (tenant:42 at s3cret.example:8443)"
    gone = f'PUT orders/7  (tenant:7 would wait: {tenants.PATH}("7") knows no endpoint.)'
    assert shown(endpoint="tenant:7")[0] == gone
    tenants.forget()


def test_it_shows_bytes_as_python_does():
    assert "b'\\x00'" in shown(headers={"Content-Type": "image/png"}, body=b"\x00")


@pytest.mark.django_db
def test_what_can_t_be_prepared_is_failed_and_the_others_are_printed(declare):
    class Late(ModelDispatch):
        snapshot = "send"

        def get_payload(self, order, change):
            if order.number == "A-1":
                raise ZeroDivisionError("bug")
            return {}

    declare(Order, base=Late)
    stream, made = io.StringIO(), []
    for number in ("A-1", "A-2"):
        order = Order.objects.create(number=number)
        (row,) = Delivery.objects.filter(object_pk=order.pk)
        made.append(Recorded(row, "default"))
    ConsoleBackend("default", stream=stream).committed(made, "default", fresh=False)

    assert list(Delivery.objects.order_by("id").values_list("state", "error_class")) == [
        ("failed", "build"),
        ("delivered", ""),
    ]
    assert "get_payload() raised ZeroDivisionError: bug" in Delivery.objects.earliest("id").reason
    assert stream.getvalue().count("POST") == 1


def test_it_prints_where_it_is_told_to():
    stream = io.StringIO()
    ConsoleBackend("default", stream=stream)._print(
        Delivery(uid=UID, endpoint="crm", method="GET", headers={})
    )

    assert stream.getvalue().startswith("GET /  (crm at crm.example.com)\n")
