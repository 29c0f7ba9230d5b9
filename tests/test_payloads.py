import json
from collections import UserDict
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_dispatch.exceptions import PayloadError
from signal_dispatch.payloads import decode, encode_form, encode_json, from_fields, to_plain
from tests.once import ONCE
from tests.shop.models import Customer, Order, Seat, Shipment, Tag

pytestmark = ONCE


def test_payload_has_flat_keys_and_values_as_the_database_gives_them_back():
    order = Order(number=7, total="12", customer=Customer(pk=3, email="a@b.example"))

    payload = from_fields(order, ["number", "total", "customer", "customer__email", "data"])

    assert payload == {
        "number": "7",
        "total": "12.00",
        "customer": 3,
        "customer__email": "a@b.example",
        "data": {},
    }


def test_payload_error_names_the_field_and_the_place_inside_it():
    order = Order(data={"items": [{"price": float("nan")}]})

    with pytest.raises(PayloadError, match=r"at 'data\.items\.0\.price'"):
        from_fields(order, ["data"])


def test_keys_of_objects_become_plain():
    order = Order(pk=5)

    assert to_plain([order, Shipment(pk=UUID(int=2)), Seat(row="A", number=4)]) == [
        5,
        "00000000-0000-0000-0000-000000000002",
        ["A", 4],
    ]


@pytest.mark.parametrize(
    "series",
    [[1, 2], (1, 2), range(1, 3), iter([1, 2]), {1: 0, 2: 0}.keys(), {0: 1, 1: 2}.values()],
)
def test_every_kind_of_series_becomes_a_list(series):
    assert to_plain(series) == [1, 2]


def test_set_becomes_a_sorted_list_whatever_is_in_it():
    assert to_plain({10, 9, "b", "a", None, (2, 1), (1, "x")}) == [
        None, 9, 10, [1, "x"], [2, 1], "a", "b",
    ]  # fmt: skip


def test_queryset_becomes_a_list_of_keys(db):
    tags = [Tag.objects.create(name=name) for name in "ab"]

    assert to_plain(Tag.objects.order_by("pk")) == [tag.pk for tag in tags]
    assert to_plain(Tag.objects.order_by("pk").values("name")) == [{"name": "a"}, {"name": "b"}]


def test_keys_of_mappings_become_text():
    assert to_plain(UserDict({1: "b"})) == {"1": "b"}
    assert to_plain({UUID(int=0): 1, False: 2, Decimal("1.0"): 3}) == {
        "00000000-0000-0000-0000-000000000000": 1,
        "false": 2,
        "1.0": 3,
    }


@pytest.mark.parametrize("mapping", [{1: "a", "1": "b"}, {None: 1}, {(1, 2): 3}])
def test_keys_that_text_would_lose_are_refused(mapping):
    with pytest.raises(PayloadError, match=r"at 'top'"):
        to_plain({"top": mapping})


def test_type_without_a_form_is_named_with_its_place():
    with pytest.raises(PayloadError, match=r"a complex has no form in JSON, at 'items\.1\.price'"):
        to_plain({"items": [{}, {"price": 1j}]})


def test_type_without_a_form_at_the_top_is_named():
    with pytest.raises(PayloadError, match=r"a object has no form in JSON, at '\(its top\)'"):
        to_plain(object())


def test_payload_that_contains_itself_is_refused():
    payload = {}
    payload["self"] = [payload]

    with pytest.raises(PayloadError, match="contains itself"):
        encode_json(payload)


def test_json_is_compact_utf8():
    assert encode_json({"name": "Zoë", "total": Decimal("1.50")}) == (
        '{"name":"Zoë","total":"1.50"}'.encode(),
        "application/json",
    )


@pytest.mark.parametrize("number", [float("nan"), float("inf"), Decimal("NaN")])
def test_json_refuses_what_is_no_number_and_names_the_place(number):
    with pytest.raises(PayloadError, match="at 'total'"):
        encode_json({"total": number})


_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_PLAIN)
def test_json_is_decoded_to_what_was_encoded(payload):
    body, content_type = encode_json(payload)

    assert decode(body, content_type) == payload
    assert json.loads(body) == payload


def test_form_repeats_lists_and_leaves_none_empty():
    payload = {"name": "A & B", "tags": [1, 2], "paid": True, "note": None, "none": []}

    assert encode_form(payload) == (
        b"name=A+%26+B&tags=1&tags=2&paid=true&note=",
        "application/x-www-form-urlencoded",
    )


@pytest.mark.parametrize("payload", [{"a": {"b": 1}}, {"a": [{"b": 1}]}, {"a": [[1]]}])
def test_form_refuses_what_is_not_flat(payload):
    with pytest.raises(PayloadError, match="A form is flat; 'a' holds"):
        encode_form(payload)


def test_form_refuses_a_payload_without_names():
    with pytest.raises(PayloadError, match="the payload is a list"):
        encode_form([1, 2])


def test_form_is_decoded_to_text():
    body, content_type = encode_form({"a": "ä", "b": [1, 2], "c": None})

    assert decode(body, content_type) == {"a": "ä", "b": ["1", "2"], "c": ""}


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", "application/hal+json"]
)
def test_content_types_of_json_are_known(content_type):
    assert decode(b'{"a":1}', content_type) == {"a": 1}


def test_empty_body_is_none():
    assert decode(b"", "application/json") is None


def test_other_bodies_stay_bytes():
    assert decode(b"<a/>", "application/xml") == b"<a/>"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"\xff", "application/json"),
        (b"a;b", "application/x-www-form-urlencoded"),
    ],
)
def test_body_that_is_not_what_it_says_is_refused(body, content_type):
    with pytest.raises(PayloadError, match=f"is not {content_type}"):
        decode(body, content_type)
