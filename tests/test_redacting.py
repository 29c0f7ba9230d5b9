import json

import pytest

from signal_dispatch.redacting import MASK, is_confidential, kept_content, kept_headers, shown
from tests.once import ONCE

pytestmark = ONCE


@pytest.mark.parametrize(
    "name",
    [
        "Set-Cookie",
        "Cookie",
        "Authorization",
        "Proxy-Authorization",
        "WWW-Authenticate",
        "Proxy-Authenticate",
        "Authentication-Info",
        "X-Auth-Token",
        "X-CSRFToken",
        "x_api_key",
        "X-Client-Secret",
    ],
)
def test_headers_that_look_like_secrets_are_masked(name):
    assert kept_headers({name: "s3cret", "ETag": "1"}, ()) == {name: MASK, "ETag": "1"}


@pytest.mark.parametrize("name", ["X-Session-Id", "x_session_id", "X-SESSIONID"])
def test_headers_that_are_named_are_masked(name):
    assert kept_headers({"X-Session-Id": "s3cret", "X-Other": "1"}, [name]) == {
        "X-Session-Id": MASK,
        "X-Other": "1",
    }


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("/orders/?key=s3cret", "/orders/?key=[redacted]"),
        ("/orders/?a=1&key=s3cret&b=2#top", "/orders/?a=1&key=[redacted]&b=2#top"),
        ("https://crm.example.com/?key=s3cret&key=s3cret", None),
        ("</orders/?a%5B%5D=s3cret>; rel=next", "</orders/?a%5B%5D=[redacted]>; rel=next"),
        ("/orders/?monkey=1", "/orders/?monkey=1"),
    ],
)
@pytest.mark.parametrize("name", ["Location", "Content-Location", "Link", "Refresh"])
def test_url_of_the_call_that_comes_back_is_without_its_secret_parameters(name, value, kept):
    found = kept_headers({name: value}, (), parameters=["key", "a[]"])[name]

    assert "s3cret" not in found
    assert kept in (None, found)


def test_url_of_the_call_that_comes_back_is_without_the_path_that_may_be_the_secret():
    location = "https://hooks.example.com/services/s3cret/orders/"

    assert kept_headers({"Location": location}, (), path="/services/s3cret/") == {
        "Location": "https://hooks.example.com[redacted]orders/"
    }
    assert kept_headers({"Location": "/orders/"}, (), path="/") == {"Location": "/orders/"}


def test_names_in_json_are_masked_at_any_depth():
    content = json.dumps(
        {
            "id": 7,
            "access_token": "s3cret",
            "items": [{"accessToken": {"value": "s3cret"}, "name": "Zoë"}],
        }
    ).encode()

    assert json.loads(kept_content(content, ["access_token"])) == {
        "id": 7,
        "access_token": MASK,
        "items": [{"accessToken": MASK, "name": "Zoë"}],
    }


def test_name_that_stands_twice_is_masked_twice():
    kept = kept_content(b'{"key": "s3cret", "key": "s3cret"}', ["key"])

    assert json.loads(kept) == {"key": MASK}


@pytest.mark.parametrize(
    "content", [b'{"id":  1.50}', b"[NaN]", b"", b"<html>", b"\xff\xfe\x00", b"[" * 100_000]
)
def test_content_without_the_names_stays_byte_for_byte(content):
    assert kept_content(content, ["access_token"]) == content


def test_content_stays_as_it_is_where_nothing_is_named():
    assert kept_content(b'{"access_token": "t"}', ()) == b'{"access_token": "t"}'


@pytest.mark.parametrize(
    "content",
    [
        b"access_token=s3cret&scope=all",
        b"<accessToken>s3cret</accessToken>",
        b'{"id": 1, "access_token": "s3cret", "tex',  # cut
        b'{"access_token": "s3cret", "much": 1e999}',  # can't be written as JSON again
        b'{"access_token": ' + b"[" * 100_000,
    ],
)
def test_what_can_not_be_masked_in_part_is_masked_whole(content):
    assert kept_content(content, ["access_token"]) == MASK.encode()


def test_message_shows_nothing_of_a_text_that_mentions_a_name():
    assert shown("AccessToken is s3cret", ["access_token"]) == MASK
    assert shown("busy", ["access_token"]) == "busy"


def test_harmless_names_are_no_secrets():
    for name in ("Content-Type", "ETag", "Idempotency-Key", "X-Request-Id", "Retry-After"):
        assert not is_confidential(name)
