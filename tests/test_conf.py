from datetime import timedelta

import pytest

from signal_dispatch import conf
from signal_dispatch.exceptions import InvalidSettings


@pytest.fixture
def nothing_set(settings):
    # Django's signal tells of settings that change, but not of those that are taken away.
    del settings.SIGNAL_DISPATCH_ENDPOINTS
    conf.settings.forget()
    yield
    conf.settings.forget()


def test_defaults_hold_where_nothing_is_set(nothing_set):
    assert conf.settings.endpoints == {}
    assert conf.settings.backends == {
        "default": {"BACKEND": "signal_dispatch.backends.threads.ThreadsBackend"}
    }
    assert conf.settings.lease_seconds == 60
    assert conf.settings.retention == {
        "delivered": timedelta(days=7),
        "failed": timedelta(days=30),
    }
    assert conf.settings.environment == ""


def test_changed_settings_are_read_anew(settings):
    assert conf.settings.lease_seconds == 60

    settings.SIGNAL_DISPATCH_LEASE_SECONDS = 5

    assert conf.settings.lease_seconds == 5


def test_settings_are_parsed_once(settings):
    settings.SIGNAL_DISPATCH_RETENTION = {"failed": timedelta(days=1)}
    first = conf.settings.retention

    settings.LANGUAGE_CODE = "fr"

    assert conf.settings.retention is first


def test_retention_may_name_one_of_two(settings):
    settings.SIGNAL_DISPATCH_RETENTION = {"failed": timedelta(days=1)}

    assert conf.settings.retention["delivered"] == timedelta(days=7)
    assert conf.settings.retention["failed"] == timedelta(days=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENDPOINTS", ["crm"]),
        ("ENDPOINTS", {"crm": "https://crm.example.com/"}),
        ("ENDPOINTS", {7: {}}),
        ("BACKENDS", None),
        ("BACKENDS", {"default": "signal_dispatch.backends.threads.ThreadsBackend"}),
        ("LEASE_SECONDS", "60"),
        ("LEASE_SECONDS", True),
        ("LEASE_SECONDS", 0),
        ("LEASE_SECONDS", float("inf")),
        ("LEASE_SECONDS", float("nan")),
        ("RETENTION", 7),
        ("RETENTION", {"lost": timedelta(days=1)}),
        ("RETENTION", {"failed": 30}),
        ("RETENTION", {"failed": timedelta(days=-1)}),
        ("ENVIRONMENT", None),
        ("ENVIRONMENT", 1),
    ],
)
def test_wrong_values_are_refused_by_name(settings, name, value):
    setattr(settings, f"SIGNAL_DISPATCH_{name}", value)

    with pytest.raises(InvalidSettings) as caught:
        getattr(conf.settings, name.lower())
    assert str(caught.value).startswith(f"SIGNAL_DISPATCH_{name}")
    assert " must " in str(caught.value) or "does not know 'lost'" in str(caught.value)


@pytest.mark.parametrize(
    ("reader", "value", "result"),
    [
        (conf.text, "a", "a"),
        (conf.texts, {"a": "b"}, {"a": "b"}),
        (conf.dotted_path, "shop.api.make", "shop.api.make"),
        (conf.flag, False, False),
        (conf.flag_or_text, "/etc/ca.pem", "/etc/ca.pem"),
        (conf.text_or_pair, "/c.pem", "/c.pem"),
        (conf.text_or_pair, ["/c.pem", "/k.pem"], ("/c.pem", "/k.pem")),
        (conf.arguments, None, None),
        (conf.arguments, {"after": 5}, {"after": 5}),
        (conf.count, 1, 1),
        (conf.seconds, 2, 2.0),
        (conf.timeout, 3, (3.0, 3.0)),
        (conf.timeout, [3, 10], (3.0, 10.0)),
        (conf.rate, None, None),
        (conf.rate, "10/s", (10, 1.0)),
        (conf.rate, "600/m", (600, 60.0)),
        (conf.url, "https://crm.example.com/api/", "https://crm.example.com/api/"),
        (conf.url, "http://[::1]:8000", "http://[::1]:8000"),
        (conf.url, "https://hooks.example.com/x?sig=1", "https://hooks.example.com/x?sig=1"),
        (conf.headers, {"X-Key": "v"}, {"X-Key": "v"}),
        (conf.query, {"key": "v", "n": 1, "many": ["a", "b"]},
         (("key", "v"), ("n", "1"), ("many", "a"), ("many", "b"))),
        (conf.auth, ("user", "word"), ("user", "word")),
        (conf.auth, "shop.api.auth", "shop.api.auth"),
    ],
)  # fmt: skip
def test_values_are_read_in_one_form(reader, value, result):
    assert reader(value) == result


@pytest.mark.parametrize(
    ("reader", "value"),
    [
        (conf.text, ""),
        (conf.text, None),
        (conf.texts, ["a"]),
        (conf.texts, {"Authorization": None}),
        (conf.texts, {1: "a"}),
        (conf.dotted_path, "make"),
        (conf.dotted_path, "shop..make"),
        (conf.dotted_path, 1),
        (conf.flag, 1),
        (conf.flag_or_text, ""),
        (conf.flag_or_text, None),
        (conf.text_or_pair, ["a", "b", "c"]),
        (conf.text_or_pair, ["a", 1]),
        (conf.arguments, [1]),
        (conf.arguments, {1: 1}),
        (conf.count, 0),
        (conf.count, True),
        (conf.count, 1.5),
        (conf.seconds, 0),
        (conf.seconds, "1"),
        (conf.timeout, [1]),
        (conf.timeout, [1, None]),
        (conf.rate, "10"),
        (conf.rate, "0/s"),
        (conf.rate, "10/d"),
        (conf.rate, "1\u0660/s"),
        (conf.rate, 10),
        (conf.url, "crm.example.com"),
        (conf.url, "ftp://crm.example.com/"),
        (conf.url, "https://"),
        (conf.url, "https:///api"),
        (conf.url, "https://crm.example.com:99999/"),
        (conf.url, "https://[::1"),
        (conf.url, "https://crm.example.com/ api"),
        (conf.url, "https://crm.example.com\\@evil.example/"),
        (conf.url, "https://user:word@crm.example.com/"),
        (conf.url, "https://crm.example.com/#top"),
        (conf.url, None),
        (conf.headers, {"X Key": "v"}),
        (conf.headers, {"X-Key": "a\r\nEvil: b"}),
        (conf.headers, {"X-Key": "€"}),
        (conf.query, "key=v"),
        (conf.query, {"key": None}),
        (conf.query, {1: "v"}),
        (conf.auth, ["user"]),
        (conf.auth, 1),
        (conf.auth, "user"),
    ],
)
def test_values_of_the_wrong_kind_are_refused_without_repeating_them(reader, value):
    with pytest.raises((TypeError, ValueError), match=r"^(must|holds)") as caught:
        reader(value)
    for secret in ("word", "evil.example", "Evil", "top"):
        assert secret not in str(caught.value).replace("password", "")
