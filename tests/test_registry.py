"""What may be registered, and how it is found again."""

import pytest

from signal_dispatch import ModelDispatch, register
from signal_dispatch.exceptions import InvalidDispatch
from signal_dispatch.registry import Registry, registry
from tests.once import ONCE
from tests.shop.models import Customer, Order, OrderProxy, PriorityOrder

pytestmark = ONCE


class Told(ModelDispatch):
    name = "shop.Told"


class Other(ModelDispatch):
    name = "shop.Other"


@pytest.fixture
def own():
    return Registry()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((Told,), "needs a model"),
        ((Order, Order), "not a subclass of ModelDispatch"),
        ((Told(Order), Order), "not a subclass of ModelDispatch"),
        (
            (Told, "shop.Order"),
            "registered for 'shop.Order', which is no model. "
            "Import the class: from shop.models import Order.",
        ),
        ((Told, "Order"), "registered for 'Order', which is no model."),
        ((Told, Told), "which is no model"),
        ((Told, Order, Order), r"registered for shop\.Order already"),
    ],
)
def test_what_makes_no_sense_is_refused(own, arguments, sentence):
    with pytest.raises(InvalidDispatch, match=sentence):
        own.add(*arguments)


def test_one_class_for_two_models_is_two_dispatches(own):
    own.add(Told, Order, Customer)

    assert [(d.name, d.model) for d in own] == [("shop.Told", Order), ("shop.Told", Customer)]
    assert len(own) == 2
    assert own.pairs() == {("shop.Told", "shop.order"), ("shop.Told", "shop.customer")}


def test_a_row_finds_its_dispatch_by_name_and_model(own):
    own.add(Told, Order)
    own.add(Other, Order, Customer)

    assert own.find("shop.Other", "shop.customer").model is Customer
    assert own.find("shop.Told", "shop.customer") is None
    assert own.find("shop.Gone", "shop.order") is None
    assert [d.name for d in own.of_table(Order)] == ["shop.Told", "shop.Other"]


def test_a_proxy_shares_the_table_and_a_child_has_its_own(own):
    own.add(Told, OrderProxy)
    own.add(Other, PriorityOrder)

    assert [d.name for d in own.of_table(Order)] == ["shop.Told"]
    assert [d.name for d in own.of_table(PriorityOrder)] == ["shop.Other"]
    assert own.of_table(Customer) == []


def test_a_class_is_forgotten_for_all_its_models(own):
    own.add(Told, Order, Customer)
    own.add(Other, Order)
    own.remove(Told)

    assert [d.name for d in own] == ["shop.Other"]
    assert own.of_table(Customer) == []
    own.remove(Told)  # once more is no error


def test_a_listener_hears_at_once_and_of_each_change(own):
    heard = []
    own.add(Told, Order)
    own.listen(lambda: heard.append(len(own)))
    own.add(Other, Order)
    own.remove(Told)

    assert heard == [1, 2, 1]


def test_the_decorator_registers_and_returns_the_class():
    try:

        @register(Order)
        class Decorated(ModelDispatch):
            fields = ()

        assert Decorated.__name__ == "Decorated"
        assert [type(d) for d in registry.of_table(Order)] == [Decorated]
    finally:
        registry.remove(Decorated)


def test_register_without_parentheses_is_refused():
    with pytest.raises(InvalidDispatch, match=r"write @register\(Order\)"):

        @register
        class Told(ModelDispatch):
            endpoint = "crm"
