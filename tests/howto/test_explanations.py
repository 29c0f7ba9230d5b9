"""The explanations: their code works, and their numbers are those of the code."""

import re

import pytest
from django.db.models.signals import post_save

from signal_dispatch import hand, naps, patience, renewing, sweeping
from signal_dispatch.retries import DEFAULT_DELAYS
from tests.howto.pages import DOCS, Page, shop_of_the_tests
from tests.howto.pages_of_operations import run
from tests.once import ONCE
from tests.shop.models import Order

pytestmark = ONCE

OUTBOX = Page("explanation/why-an-outbox")
THREAD = OUTBOX.block("Thread(")
TASK = OUTBOX.block("@shared_task")


def words_of(page):
    return " ".join((DOCS / f"explanation/{page}.md").read_text().split())


def test_all_code_of_the_pages_is_run():
    assert OUTBOX.left == []
    for page in ("how-it-works", "guarantees", "threads-and-the-gil"):
        assert Page(f"explanation/{page}").blocks == []


@pytest.mark.parametrize("code", [THREAD, TASK], ids=["thread", "task"])
def test_what_people_write_instead_is_a_receiver(code):
    with shop_of_the_tests():
        # Celery keeps each task for ever, and warns of two that share module and name.
        names = run(code, __name__="tests.shop.receivers")

    assert post_save.disconnect(names["tell"], sender=Order)


def test_how_it_works_is_one_room_with_both_drawings():
    text = words_of("how-it-works")

    assert len(text.split()) < 2100
    assert re.findall(r"!\[[^]]+\]\(\.\./img/(\w+)\.svg\)", text) == ["way", "states"]


def seconds_of(text):
    number, unit = text.split()
    return float(number) * {"s": 1, "min": 60, "h": 3600}[unit]


def test_the_schedule_is_told_as_it_is():
    told = (
        words_of("how-it-works").partition("by default: at once, after ")[2].partition(". Each")[0]
    )
    waits = [seconds_of(wait) for wait in re.split(", | and ", told)]

    assert (0, *waits) == DEFAULT_DELAYS


def test_numbers_of_recording_are_those_of_the_code():
    text, threads = words_of("how-it-works"), words_of("threads-and-the-gil")

    assert (hand.FLUSH_COUNT, hand.FLUSH_SECONDS, hand.MAX_UNRECORDED) == (28, 0.1, 32)
    assert "when 28 are there, after 0.1 s at the latest" in text
    assert "when there are 28, or when the first has waited for 0.1 s" in threads
    assert (hand.READ_COUNT, hand.READ_SECONDS, hand.LONG_BURST) == (32, 0.05, 2 * 6)
    assert "read back when there are 32, or when the first has waited for 50 ms" in threads
    assert hand.BURST_SECONDS == 0.02
    assert "six within 20 ms of each other" in threads


def test_numbers_of_giving_way_are_those_of_the_code():
    text = words_of("threads-and-the-gil")

    assert (hand.BUSY_SECONDS, hand.LOOP_SECONDS, hand.LONG_BURST) == (0.002, 0.005, 2 * 6)
    assert "under way for 2 ms" in text
    assert "six times and more within 5 ms of each other" in text
    assert (hand.PATIENCE_SECONDS, hand.LATE_SECONDS) == (3, 0.01)
    assert "something has waited for 3 s" in text
    assert "the last call took 10 ms or more" in text
    assert patience.SECONDS == 30


def test_numbers_of_the_sweep_are_those_of_the_code():
    assert renewing.HINT_SECONDS == 5  # asked as often: a lost hint costs up to twice as long
    assert naps.MAX_SLEEP_SECONDS * 1.2 == 72
    assert sweeping.REPAIR_SECONDS == 300
