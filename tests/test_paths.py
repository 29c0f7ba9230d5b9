from datetime import date
from decimal import Decimal
from urllib.parse import unquote, urljoin, urlsplit
from uuid import UUID

import pytest
import uritemplate
from hypothesis import given
from hypothesis import strategies as st

from signal_dispatch.exceptions import PathError
from signal_dispatch.paths import expand, problem_with, variables
from tests.once import ONCE
from tests.shop.models import Order, Seat

pytestmark = ONCE

LATER = frozenset({"remote_id"})


def test_variables_are_listed_once_in_their_order():
    assert variables("orders/{b}/{a:3}{/b*}{?c,a}") == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", ""),
        ("orders", "orders"),
        ("orders/", "orders/"),
        ("/orders/{n}", "orders/7"),
        ("orders/{n}/lines", "orders/7/lines"),
        ("orders{/n}", "orders/7"),
        ("{/n}", "7"),
        ("orders/{n}{.s}", "orders/7.paid"),
        ("orders{;s}", "orders;s=paid"),
        ("orders{?n,s}", "orders?n=7&s=paid"),
        ("orders?full=1{&s}", "orders?full=1&s=paid"),
        ("orders/{s:2}", "orders/pa"),
        ("Orders('{s}')", "Orders('paid')"),
        ("caf%C3%A9/{n}", "caf%C3%A9/7"),
    ],
)
def test_template_is_filled(template, expected):
    assert expand(template, {"n": 7, "s": "paid"}) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a/b?c#d", "a%2Fb%3Fc%23d"),
        ("50% & {more}", "50%25%20%26%20%7Bmore%7D"),
        ("Zoë", "Zo%C3%AB"),
        ("%2e%2e", "%252e%252e"),
        ("...", "..."),
        ("a//b", "a%2F%2Fb"),
        (0, "0"),
        (True, "true"),
        (Decimal("1.50"), "1.50"),
        (date(2026, 1, 2), "2026-01-02"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Order(pk=5), "5"),
        (Seat(row="A,B", number=4), "A%2CB,4"),
        ([1, "b"], "1,b"),
    ],
)
def test_value_is_one_segment(value, expected):
    assert expand("x/{value}", {"value": value}) == f"x/{expected}"


def test_composite_key_can_be_segments_of_their_own():
    assert expand("seats{/pk*}", {"pk": ("A", 4)}) == "seats/A/4"


@pytest.mark.parametrize("template", ["x/{v}", "x{/v}", "x{?v}", "x{;v}", "x/{a,v}"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "is empty"),
        (" \t", "is empty"),
        (".", r"is '\.', which has"),
        ("..", r"is '\.\.', which has"),
        ("../..", "'.' or '..' segment"),
        ("a/../b", "'.' or '..' segment"),
        ("a/.", "'.' or '..' segment"),
        ("..;a", "'.' or '..' segment"),
        ("..\\a", "'.' or '..' segment"),
        (["a", ".."], "'.' or '..' segment"),
        (["a", None], "is None"),
        ([], "has no form"),
        ([[1]], "has no form"),
        ({"a": 1}, "has no form"),
        (float("nan"), "has no form"),
        ("\ud800", "has no form"),
        (Order(), "is None"),
        (object(), "a object has no form"),
    ],
)
def test_unsafe_value_is_refused_by_its_name(template, value, reason):
    with pytest.raises(PathError, match=f"'v' .*{reason}"):
        expand(template, {"v": value, "a": "fine"})


@pytest.mark.parametrize("template", ["orders/{v}", "orders{/v}", "orders{;v}", "orders{.v}"])
def test_none_in_a_path_is_refused(template):
    with pytest.raises(PathError, match="'v' is None"):
        expand(template, {"v": None})


@pytest.mark.parametrize("template", ["orders/{v}", "orders{?v}"])
def test_name_without_a_value_is_refused(template):
    with pytest.raises(PathError, match="'v' is not known"):
        expand(template, {})


def test_none_in_a_query_is_left_out():
    values = {"a": None, "b": 2}

    assert expand("orders{?a,b}", values) == "orders?b=2"
    assert expand("orders{?a}", values) == "orders"
    assert expand("orders?x=1{&a}", values) == "orders?x=1"


@pytest.mark.parametrize(
    ("template", "value"),
    [("x/{v:2}", "..a"), ("x/{v:1}/y", ".a"), (".{v}", "/a"), ("x/{.v:1}", ".a")],
)
def test_dots_that_come_about_by_filling_are_refused(template, value):
    with pytest.raises(PathError, match=r"'\.' or '\.\.' segment"):
        expand(template, {"v": value})


def test_kept_name_stays_for_a_second_filling():
    first = expand("/orders/{n}/{remote_id}{?q}", {"n": "{remote_id}%2F", "q": "a b"}, keep=LATER)

    assert first == "orders/%7Bremote_id%7D%252F/{remote_id}?q=a%20b"
    assert expand(first, {"remote_id": "c/7"}) == "orders/%7Bremote_id%7D%252F/c%2F7?q=a%20b"


def test_kept_name_keeps_its_operator():
    first = expand("{/remote_id}{?q}", {"q": None}, keep=LATER)

    assert first == "{/remote_id}"
    assert expand(first, {"remote_id": 7}) == "7"


@pytest.mark.parametrize("remote_id", [None, "", "..", "a/../b"])
def test_second_filling_is_as_careful_as_the_first(remote_id):
    stored = expand("contacts/{remote_id}", {}, keep=LATER)

    with pytest.raises(PathError, match="'remote_id'"):
        expand(stored, {"remote_id": remote_id})


@pytest.mark.parametrize(
    ("template", "cure"),
    [
        ("orders/{+n}", r"write '\{n\}'"),
        ("orders/{#n}", r"write '\{n\}'"),
        ("{a{b}}", "has a '{' without its '}'"),
        ("orders/{number", "has a '{' without its '}'"),
        ("orders/number}", "has a '}' without its '{'"),
        ("{number:05d}", r"RFC 6570; let get_path_values\(\) return the value"),
        ("{n:0}", "RFC 6570; let get_path_values"),
        ("{}", "no expression of RFC 6570"),
        ("{order-number}", "no expression of RFC 6570"),
        ("{=n}", "no expression of RFC 6570"),
        ("{n=1}", "no expression of RFC 6570"),
        ("{a,}", "no expression of RFC 6570"),
        ("all orders", "percent-encoded"),
        ("orders\n", "percent-encoded"),
        ("orders\\x", "percent-encoded"),
        ("100%", "percent-encoded"),
        ("%{n}", "percent-encoded"),
        ("orders#top", "leave it out"),
        ("//evil.example", "has '//'"),
        ("https://evil.example/x", "has '//'"),
        ("orders/{/n}", "has '//'"),
        ("..", "segment"),
        ("orders/./x", "segment"),
        ("orders/%2E%2e/x", "segment"),
        ("orders/..%2fx", "segment"),
        ("orders/..{;n}", "segment"),
        ("orders{&n}", "as one"),
        ("orders{?a}{&b}", "as one"),
        ("orders{?a}{?b}", "as one"),
        ("orders?a=1{?b}", "begins its query twice"),
        ("x/{n,remote_id}", "remote_id an expression of its own"),
    ],
)
def test_template_with_a_problem_is_refused_with_its_cure(template, cure):
    with pytest.raises(PathError, match=cure) as caught:
        expand(template, {"n": 1, "a": 1, "b": 1}, keep=LATER)

    assert str(caught.value) == problem_with(template, keep=LATER)


def test_template_without_a_problem_passes():
    assert problem_with("/orders/{number}/{remote_id}{?page,size}", keep=LATER) is None


_VALUES = st.one_of(
    st.text(), st.text("./\\%2eE{}?#;&= "), st.integers(), st.lists(st.text("./a%"), max_size=3)
)
_TEMPLATES = st.lists(
    st.sampled_from(["a", "/", ".", "{v}", "{/v}", "{.v}", "{;v}", "{v:1}", "{v*}", "{/v*}"]),
    min_size=1,
).map("".join)


@given(_TEMPLATES, _VALUES)
def test_whatever_the_value_the_path_stays_below_the_base(template, value):
    base = "https://h.example/base/"
    try:
        path = expand(template, {"v": value})
    except PathError:
        return
    url = base + path
    split = urlsplit(urljoin(url, urlsplit(url).path))

    assert split.geturl() == base + path
    assert (split.netloc, split.query, split.fragment) == ("h.example", "", "")
    assert not {".", ".."}.intersection(unquote(path).replace("\\", "/").split("/"))
    assert "//" not in split.path


@given(st.text(), st.text())
def test_filling_twice_is_filling_once(number, remote_id):
    template = "orders/{number}/{remote_id}"
    values = {"number": number, "remote_id": remote_id}
    try:
        at_once = expand(template, values)
    except PathError:
        with pytest.raises(PathError):
            expand(expand(template, values, keep=LATER), values)
        return

    assert expand(expand(template, values, keep=LATER), values) == at_once
    assert [unquote(segment) for segment in at_once.split("/")] == ["orders", number, remote_id]


@given(st.text())
def test_name_alone_is_filled_as_the_library_fills_it(text):
    try:
        path = expand("x/{v}", {"v": text})
    except PathError:
        return

    assert path == uritemplate.expand("x/{v}", v=text)
