"""What is silent where, and how chains of answers are counted."""

import threading

import pytest

from signal_dispatch import ModelDispatch, suppressed
from signal_dispatch.suppression import (
    current_hops,
    is_object_suppressed,
    is_suppressed,
    running_hook,
)
from tests.once import ONCE

pytestmark = ONCE


class Named(ModelDispatch):
    name = "shop.Named"


def test_everything_is_silent_without_arguments():
    with suppressed():
        assert is_suppressed("shop.Any")
    assert not is_suppressed("shop.Any")


def test_classes_and_names_are_silenced_alone():
    with suppressed(Named, "shop.Other"):
        assert is_suppressed("shop.Named")
        assert is_suppressed("shop.Other")
        assert not is_suppressed("shop.Third")


def test_blocks_add_up_and_end_one_by_one():
    with suppressed("shop.A"):
        with suppressed("shop.B"):
            assert is_suppressed("shop.A")
            assert is_suppressed("shop.B")
        assert is_suppressed("shop.A")
        assert not is_suppressed("shop.B")
    with suppressed(), suppressed("shop.A"):
        assert is_suppressed("shop.B")


def test_an_error_ends_the_silence():
    with pytest.raises(ZeroDivisionError), suppressed():
        _ = 1 / 0
    assert not is_suppressed("shop.A")


def test_other_threads_are_not_silenced():
    heard = []
    with suppressed():
        thread = threading.Thread(target=lambda: heard.append(is_suppressed("shop.A")))
        thread.start()
        thread.join()
    assert heard == [False]


def test_a_hook_silences_its_own_dispatch_for_its_own_object():
    with running_hook("shop.A", "shop.order", 1, hops=0):
        assert is_object_suppressed("shop.A", "shop.order", 1)
        assert not is_object_suppressed("shop.A", "shop.order", 2)
        assert not is_object_suppressed("shop.A", "shop.customer", 1)
        assert not is_object_suppressed("shop.B", "shop.order", 1)
        assert not is_suppressed("shop.A")
    assert not is_object_suppressed("shop.A", "shop.order", 1)


def test_a_hook_within_a_hook_keeps_both_objects_silent():
    with running_hook("shop.A", "shop.order", 1, 0), running_hook("shop.A", "shop.order", 2, 1):
        assert is_object_suppressed("shop.A", "shop.order", 1)
        assert is_object_suppressed("shop.A", "shop.order", 2)


def test_what_a_hook_changes_is_one_hop_further():
    assert current_hops() == 0
    with running_hook("shop.A", "shop.order", 1, hops=3):
        assert current_hops() == 4
        with suppressed("shop.B"):
            assert current_hops() == 4
    assert current_hops() == 0


def test_silence_outside_of_a_hook_holds_inside():
    with suppressed(), running_hook("shop.A", "shop.order", 1, 0):
        assert is_suppressed("shop.B")
