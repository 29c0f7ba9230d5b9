"""The how-to on serializers of Django REST framework."""

import subprocess
import sys

import pytest
from rest_framework import serializers

from signal_dispatch.models import Delivery
from tests.howto.pages import Page
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = [ONCE, pytest.mark.django_db]

PAGE = Page("how-to/django-rest-framework")
SERIALIZED = PAGE.block("class OrderToCRM")
LINKED = PAGE.block("class OrderToSearch")
TEST = PAGE.block("def test_order_is_sent")
IMPORTS = SERIALIZED.partition("@register")[0]


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []


def test_declarations_have_no_fault(write, faults):
    write(SERIALIZED, LINKED)

    assert faults() == set()


def test_the_test_of_the_page_passes(write, db, deliveries):
    write(SERIALIZED, TEST)["test_order_is_sent_with_its_customer"](db, deliveries)


def test_a_context_is_given_in_get_payload(write, deliveries):
    write(IMPORTS, LINKED)
    Order.objects.create(number="A-1")

    assert deliveries[0].payload == {"number": "A-1", "url": "https://shop.example.com/orders/A-1/"}


def test_package_does_not_import_the_framework():
    code = "import sys, signal_dispatch; assert 'rest_framework' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_is_not_called_for_a_delete(write, deliveries):
    def never(order):
        raise AssertionError(order)

    code = SERIALIZED.replace("[Event.CREATED, Event.UPDATED]", "[Event.DELETED]")
    names = write(code.replace('"PUT"', '"DELETE"'))
    names["OrderToCRM"].serializer_class = staticmethod(never)
    Order.objects.create(number="A-1").delete()

    assert deliveries[0].payload is None


def test_an_error_of_it_leaves_the_save(write, as_in_production):
    class Broken(serializers.Serializer):
        number = serializers.CharField(source="no_such_thing")

    write(SERIALIZED)["OrderToCRM"].serializer_class = Broken
    Order.objects.create(number="A-1")

    made = Delivery.objects.get()
    assert (made.state, made.error_class) == ("failed", "build")
    assert "AttributeError" in made.reason
