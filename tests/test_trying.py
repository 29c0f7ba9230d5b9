"""Calls that no delivery stands behind."""

import logging

import pytest

from signal_dispatch.exceptions import UnknownEndpoint
from signal_dispatch.trying import refuse_path, try_endpoint
from tests.once import ONCE

pytestmark = ONCE


def test_a_call_is_told_in_the_log(mock_endpoint, caplog):
    mock_endpoint("crm").reply(204)
    caplog.set_level(logging.INFO, "signal_dispatch")

    attempt = try_endpoint("crm", method="HEAD", path="", by="ann")

    assert (attempt.status_code, attempt.outcome, attempt.pk) == (204, "delivered", None)
    (record,) = caplog.records
    assert record.getMessage() == "ann made a test call to the endpoint 'crm': 204."
    assert (record.action, record.endpoint) == ("endpoint_tried", "crm")


def test_no_call_leads_out_of_the_endpoint(mock_endpoint):
    crm = mock_endpoint("crm")

    for path in ("../up", "a/%2e%2E", "%2E/a", "a%2f..%2fb", "/", "//elsewhere.example", "a\nb"):
        with pytest.raises(ValueError, match=r"must stay below|as it stands in a URL"):
            try_endpoint("crm", method="GET", path=path, by="ann")
    assert crm.calls == []
    refuse_path("a/b.c/~d?e=../f&g=%20")


def test_a_slip_of_the_pen_is_no_trial():
    with pytest.raises(UnknownEndpoint):
        try_endpoint("crn", method="GET", path="", by="ann")


def test_without_a_url_there_is_nothing_to_call(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {}}

    attempt = try_endpoint("crm", method="GET", path="", by="ann")

    assert (attempt.error_class, attempt.outcome) == ("connect", "retry")
    assert '["crm"]["URL"] is missing' in attempt.error
