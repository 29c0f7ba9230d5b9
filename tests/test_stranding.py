"""Deliveries that nobody here may take: why, and what to do about it."""

from dataclasses import replace

import pytest

from signal_dispatch.selecting import Selection
from signal_dispatch.stranding import Stranded, stranded_because, stranded_in
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = ONCE

MINE = {"environment": "", "endpoint": "crm", "dispatch": "shop.Told", "model": "shop.order"}
COUNTS = {"due": 1, "scheduled": 2, "held": 3, "waiting": 4}


@pytest.mark.parametrize(
    ("values", "stranded", "advice"),
    [
        (
            {"environment": "green"},
            Stranded("environment", "green", 10),
            "SIGNAL_DISPATCH_ENVIRONMENT is '' here: what belongs to 'green' is sent by",
        ),
        (
            {"endpoint": "erp"},
            Stranded("endpoint", "erp", 10),
            'SIGNAL_DISPATCH_ENDPOINTS["erp"] is missing',
        ),
        (
            {"dispatch": "shop.Gone"},
            Stranded("dispatch", "shop.Gone", 10),
            "deploy the code that declares it",
        ),
        (
            {"model": "shop.tag"},
            Stranded("model", "shop.Told", 10, "shop.tag"),
            "'shop.Told' is registered here, but not for shop.tag: register it for that model",
        ),
        # The first reason is the one to begin with.
        (
            {"endpoint": "erp", "dispatch": "shop.Gone"},
            Stranded("endpoint", "erp", 10),
            "add or correct it",
        ),
    ],
)
def test_each_reason_has_its_cure(declare, values, stranded, advice):
    declare(Order)
    groups = [MINE | COUNTS, MINE | COUNTS | values]

    assert list(stranded_in(groups)) == [stranded]
    assert advice in stranded.advice
    assert stranded_because(**MINE | values) == replace(stranded, deliveries=1)
    assert stranded_because(**MINE) is None


@pytest.mark.parametrize(
    ("stranded", "kind"),
    [
        (Stranded("environment", "green"), "another environment"),
        (Stranded("endpoint", "erp"), "unknown endpoint"),
        (Stranded("dispatch", "shop.Gone"), "unknown dispatch"),
        (Stranded("model", "shop.Told", model="shop.tag"), "dispatch not for shop.tag"),
    ],
)
def test_each_reason_has_its_words(stranded, kind):
    assert stranded.kind == kind


@pytest.mark.parametrize(
    ("stranded", "selected"),
    [
        (Stranded("environment", "", 1), {"environment": ""}),
        (Stranded("endpoint", "erp", 1), {"environment": "blue", "endpoint": "erp"}),
        (Stranded("dispatch", "shop.Gone", 1), {"environment": "blue", "dispatch": "shop.Gone"}),
        (
            Stranded("model", "shop.Told", 1, "shop.tag"),
            {"environment": "blue", "dispatch": "shop.Told", "model": "shop.tag"},
        ),
    ],
)
def test_the_list_finds_them_and_no_finished_ones(stranded, selected, settings):
    settings.SIGNAL_DISPATCH_ENVIRONMENT = "blue"
    assert Selection.of(stranded.filter).given() == selected | {"state": "unfinished"}
