"""Deliveries that nobody here may take: why, and what to do about it."""

import pytest

from signal_dispatch.selecting import Selection
from signal_dispatch.stranding import Stranded, stranded_in
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = ONCE

MINE = {"environment": "", "endpoint": "crm", "dispatch": "shop.Told", "model": "shop.order"}
COUNTS = {"due": 1, "scheduled": 2, "held": 3, "waiting": 4}


@pytest.mark.parametrize(
    ("values", "because", "name", "advice"),
    [
        ({"environment": "green"}, "environment", "green", "SIGNAL_DISPATCH_ENVIRONMENT is ''"),
        ({"endpoint": "erp"}, "endpoint", "erp", 'SIGNAL_DISPATCH_ENDPOINTS["erp"] is missing'),
        ({"dispatch": "shop.Gone"}, "dispatch", "shop.Gone", "deploy the code that declares it"),
        ({"model": "shop.tag"}, "model", "shop.Told for shop.tag", "register it for that model"),
        # The first reason is the one to begin with.
        ({"endpoint": "erp", "dispatch": "shop.Gone"}, "endpoint", "erp", "add or correct it"),
    ],
)
def test_each_reason_has_its_cure(declare, values, because, name, advice):
    declare(Order)
    groups = [MINE | COUNTS, MINE | COUNTS | values]

    (stranded,) = stranded_in(groups)
    assert stranded == Stranded(because, name, 10)
    assert advice in stranded.advice


@pytest.mark.parametrize(
    ("stranded", "selected"),
    [
        (Stranded("environment", "", 1), {"environment": ""}),
        (Stranded("endpoint", "erp", 1), {"environment": "blue", "endpoint": "erp"}),
        (Stranded("dispatch", "shop.Gone", 1), {"environment": "blue", "dispatch": "shop.Gone"}),
        (
            Stranded("model", "shop.Told for shop.tag", 1),
            {"environment": "blue", "dispatch": "shop.Told", "model": "shop.tag"},
        ),
    ],
)
def test_the_list_finds_them_and_no_finished_ones(stranded, selected, settings):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "blue"
    assert Selection.of(stranded.filter).given() == selected | {"state": "unfinished"}
