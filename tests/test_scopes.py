"""Which deliveries are a process's to take."""

import pytest

from signal_dispatch.scopes import Scope, own_scope
from tests.deliveries import delivery
from tests.shop.models import Customer, Order
from tests.test_families import SCOPE


def test_a_process_sends_only_where_its_settings_are_sound(settings, declare):
    declare(Order, name="shop.Both")
    declare(Customer, name="shop.Both", fields=())
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "staging"
    settings.SIGNAL_DISPATCH_ENDPOINTS = {"crm": {}, "bad": {"URL": "nowhere"}}

    assert own_scope(["crm", "bad", "gone"]) == Scope(
        "staging",
        frozenset({"crm"}),
        frozenset({("shop.Both", "shop.order"), ("shop.Both", "shop.customer")}),
    )


def test_a_process_sends_to_all_of_a_family_or_to_those_that_are_named(tenant):
    for named, endpoints, families in (
        (["crm", "tenant"], {"crm"}, {"tenant"}),
        (["tenant:42", "tenant:", "crm:42"], {"tenant:42"}, set()),
    ):
        scope = own_scope(named)
        assert (scope.endpoints, scope.families) == (endpoints, families)


@pytest.mark.django_db
def test_the_rows_of_a_scope_are_those_of_its_endpoints_and_families():
    mine = [delivery(endpoint=name, state="waiting") for name in ("crm", "tenant:1", "tenant:a:b")]
    for other in ("tenant", "Tenant:1", "TENANT:1", "tenants:1", "x", "xtenant:1"):
        delivery(endpoint=other, state="waiting")

    assert list(SCOPE.rows("default").order_by("id")) == mine
    assert SCOPE.names == ["crm", "tenant"]
    assert [SCOPE.includes(d.endpoint) for d in mine] == [True] * 3
    assert not SCOPE.includes("tenant")
