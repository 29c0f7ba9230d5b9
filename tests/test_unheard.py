"""Managers through which a dispatch hears nothing."""

import pytest

from signal_dispatch import Event
from signal_dispatch.registry import registry
from signal_dispatch.unheard import silent_managers
from tests.once import ONCE
from tests.shop.models import Order, Ticket

pytestmark = ONCE


@pytest.mark.parametrize(
    ("model", "on", "names"),
    [
        (Order, [Event.CREATED], ["objects"]),
        (Order, [Event.UPDATED, Event.DELETED], ["objects"]),
        (Order, [Event.DELETED, "refunded"], []),
        (Ticket, [Event.CREATED, Event.UPDATED], []),
    ],
)
def test_what_is_told_of_no_bulk_write_names_the_managers(declare, model, on, names):
    declare(model, on=on)

    (dispatch,) = registry
    assert silent_managers(dispatch) == names
