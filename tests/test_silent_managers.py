"""Managers through which a dispatch hears nothing."""

from contextlib import ExitStack, contextmanager

import pytest
from django.db.models import Manager

from signal_dispatch import Event
from signal_dispatch.managers import DispatchManager, silent_managers
from signal_dispatch.registry import registry
from tests.once import ONCE
from tests.shop.models import SeasonTicket, Ticket, TicketProxy

pytestmark = ONCE


@contextmanager
def more(model, name, manager):
    """Give a model one more manager for a while, which its proxies and children inherit."""
    manager.contribute_to_class(model, name)
    _look_again()
    try:
        yield
    finally:
        delattr(model, name)
        own = model._meta.local_managers
        own[:] = [each for each in own if each is not manager]
        _look_again()


def _look_again():
    for model in (Ticket, TicketProxy, SeasonTicket):
        model._meta._expire_cache()


@pytest.mark.parametrize(
    ("registered", "managers", "names"),
    [
        (Ticket, {(TicketProxy, "others"): Manager}, ["shop.TicketProxy.others"]),
        (Ticket, {(SeasonTicket, "loose"): Manager}, ["shop.SeasonTicket.loose"]),
        (Ticket, {(SeasonTicket, "heard"): DispatchManager}, []),
        (Ticket, {(Ticket, "plain"): Manager}, ["plain"]),
        (
            Ticket,
            {(Ticket, "plain"): Manager, (TicketProxy, "plain"): Manager},
            ["plain", "shop.TicketProxy.plain"],
        ),
        (TicketProxy, {(TicketProxy, "others"): Manager}, ["others"]),
        (TicketProxy, {(SeasonTicket, "loose"): Manager}, []),
    ],
)
def test_managers_of_proxies_and_children_are_named_too(declare, registered, managers, names):
    declare(registered, on=[Event.UPDATED])

    (dispatch,) = registry
    with ExitStack() as stack:
        for (model, name), manager in managers.items():
            stack.enter_context(more(model, name, manager()))
        assert silent_managers(dispatch) == names
    assert silent_managers(dispatch) == []
