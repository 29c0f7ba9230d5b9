"""New objects of a model, made from values by their columns' names."""

import pytest

from signal_dispatch.blanks import maker_of
from signal_dispatch.models import Attempt, Delivery


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Attempt, {"number": 3, "sender": "me"}),
        (Delivery, {"lane": "a", "hops": 2, "headers": {"X-A": "1"}}),
    ],
)
def test_what_is_made_is_what_the_model_makes(model, values):
    made, usual = maker_of(model)(**values), model(**values)

    for name in (field.attname for field in model._meta.concrete_fields if field.name != "uid"):
        assert getattr(made, name) == getattr(usual, name), name
    assert made._state.adding


def test_what_a_default_gives_is_each_ones_own():
    make = maker_of(Delivery)
    one, other = make(), make()

    assert one.headers == other.headers == {}
    assert one.headers is not other.headers
    assert one.uid != other.uid
