"""The how-to on several databases."""

import pytest

from signal_dispatch.databases import outbox_aliases
from signal_dispatch.models import Delivery
from tests.howto.pages import Page
from tests.howto.pages_of_operations import run
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = [ONCE, pytest.mark.django_db(databases=["default", "other"])]

PAGE = Page("how-to/several-databases")
DATABASES = PAGE.block("DATABASES")
ROUTER = PAGE.block("class ReadFromReplica")


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


def test_each_waits_for_less_than_the_lease():
    given = run(DATABASES)["DATABASES"]

    assert set(given) == {"default", "other"}
    assert all(entry["OPTIONS"]["connect_timeout"] < 60 for entry in given.values())


def test_a_delivery_stands_beside_its_object(declare):
    declare(Order)
    Order.objects.using("other").create(number="A-1")

    assert Delivery.objects.using("other").count() == 1
    assert not Delivery.objects.exists()


def test_a_replica_that_is_only_read_from_is_no_outbox_to_send_from(settings, declare):
    declare(Order)
    assert outbox_aliases(Delivery, [Order]) == ["default", "other"]
    router = run(ROUTER.replace("replica", "other"))["ReadFromReplica"]
    settings.DATABASE_ROUTERS = [router()]

    assert outbox_aliases(Delivery, [Order]) == ["default"]
