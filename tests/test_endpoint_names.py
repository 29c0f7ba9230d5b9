"""Which endpoints there are."""

import pytest

from signal_dispatch import endpoint_names, faring
from tests.deliveries import delivery
from tests.once import ONCE


@pytest.mark.django_db
def test_of_endpoints_that_only_rows_name_some_are_found(monkeypatch):
    monkeypatch.setattr(endpoint_names, "MOST_FOUND", 3)
    for number in range(5):
        delivery(endpoint=f"e{number}")

    assert endpoint_names.names("default") == ["crm", "e0", "e1", "e2", "hubspot"]
    assert endpoint_names.is_known("default", "e4")


@ONCE
@pytest.mark.django_db
def test_a_faulty_entry_is_known_by_its_name(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "nonsense"}, "t": {"RESOLVER": "a.b"}}

    assert endpoint_names.is_known("default", "crm")
    assert faring.bars_of("default", ["crm"])["crm"].kind == "gone"
    assert not endpoint_names.is_known("default", "t")
    assert not endpoint_names.is_known("default", "t:")
    assert not endpoint_names.is_known("default", "crm:1")
    assert endpoint_names.families() == ["t"]
