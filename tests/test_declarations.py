"""What a dispatch says when nothing is overridden, and what when something is."""

import pytest

from signal_dispatch import Change, Event, ModelDispatch, Response
from signal_dispatch.exceptions import PayloadError
from tests.once import ONCE
from tests.shop.models import Legacy, Order, Stamped

pytestmark = ONCE


class Plain(ModelDispatch):
    endpoint = "crm"
    fields = ["number"]


def change(event=Event.UPDATED):
    return Change(event, Order(number="A-1"), "default")


def response(body):
    return Response(200, {"Content-Type": "application/json"}, body)


def test_the_name_is_that_of_app_and_class_unless_pinned():
    class InTheShop(ModelDispatch):
        __module__ = "tests.shop.dispatches"

    class Pinned(InTheShop):
        name = "crm.Orders"

    assert InTheShop(Order).name == "shop.InTheShop"
    assert Pinned(Order).name == "crm.Orders"
    assert Plain(Order).name == "tests.Plain", "in no app: the package's name"
    assert repr(Pinned(Order)) == "<Pinned 'crm.Orders' for shop.Order>"


def test_one_value_stands_for_all_events():
    dispatch = Plain(Order)
    order = Order(number="A-1")

    assert dispatch.get_method(order, change()) == "POST"
    assert dispatch.get_path(order, change("refunded")) == ""
    assert dispatch.get_endpoint(order, change()) == "crm"
    assert dispatch.get_event(order, change("refunded")) == "refunded"
    assert dispatch.should_send(order, change())
    assert dispatch.get_path_values(order, change()) == {}


def test_a_dict_has_one_value_for_each_event():
    class ByEvent(Plain):
        path = {Event.CREATED: "orders", "refunded": "refunds"}

    dispatch = ByEvent(Order)
    assert dispatch.get_path(Order(), change("created")) == "orders"
    assert dispatch.get_path(Order(), change("refunded")) == "refunds"
    with pytest.raises(PayloadError, match=r"ByEvent\.path has no entry.*'deleted'.*refunded"):
        dispatch.get_path(Order(), change("deleted"))


def test_payload_comes_from_the_fields_or_the_serializer():
    class Serialized(Plain):
        serializer_class = staticmethod(lambda order: type("S", (), {"data": {"n": order.number}}))

    class Empty(Plain):
        fields = ()

    order = Order(number="A-1")
    assert Plain(Order).get_payload(order, change()) == {"number": "A-1"}
    assert Serialized(Order).get_payload(order, change()) == {"n": "A-1"}
    assert Empty(Order).get_payload(order, change()) is None


def test_the_encoding_decides_on_bytes_and_content_type():
    class Form(Plain):
        encoding = "form"

    assert Plain(Order).encode({"a": 1}) == (b'{"a":1}', "application/json")
    assert Form(Order).encode({"a": 1}) == (b"a=1", "application/x-www-form-urlencoded")


@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        ("id", b'{"id": 7}', 7),
        ("data.id", b'{"data": {"id": "x"}}', "x"),
        ("items.0.id", b'{"items": [{"id": 1}, {"id": 2}]}', 1),
    ],
)
def test_the_remote_id_stands_at_a_dotted_path(path, body, found):
    class Identified(Plain):
        remote_id = path

    assert Identified(Order).get_remote_id(None, response(body)) == found


def test_old_values_are_read_for_what_judges_and_what_is_tracked():
    class Judged(Plain):
        when_changed = ["status", "total"]
        track = ["total", "notes"]

    assert Judged.tracked == ("status", "total", "notes")
    assert Plain.tracked == ()


def test_overriding_is_noticed_through_inheritance():
    class Handling(Plain):
        def handle_response(self, delivery, response): ...

    class Inheriting(Handling):
        pass

    assert Inheriting.overrides("handle_response")
    assert not Inheriting.overrides("handle_failure")
    assert not Plain.overrides("handle_response")


def test_a_model_without_a_table_of_ours_is_not_connected():
    assert Plain(Order).connectable
    assert not Plain(Legacy).connectable
    assert not Plain(Stamped).connectable


def test_the_hooks_for_answers_do_nothing_by_themselves():
    dispatch = Plain(Order)

    assert dispatch.get_outcome(None, response(b"{}")) is None
    assert dispatch.handle_response(None, response(b"{}")) is None
    assert dispatch.handle_failure(None, None) is None
    assert dispatch.check() == []
