from datetime import timedelta

import pytest

from signal_dispatch import conf
from signal_dispatch.exceptions import InvalidSettings
from tests.once import ONCE

pytestmark = ONCE


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


def test_what_was_read_while_settings_changed_is_not_kept(settings, monkeypatch):
    def seconds_slowly(value):
        settings.SIGNAL_DISPATCH_LEASE_SECONDS = 5
        return float(value)

    with monkeypatch.context() as patched:
        patched.setattr(conf.readers, "seconds", seconds_slowly)
        assert conf.settings.lease_seconds == 60

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
