"""When a process looks for work on many deliveries, and how it paces that."""

from math import inf
from time import monotonic

import pytest
from django.test.testcases import DatabaseOperationForbidden

from signal_dispatch import repairs
from signal_dispatch.repairs import TAKEN_SECONDS, Repairer
from tests.once import ONCE

pytestmark = ONCE


@pytest.fixture
def work(monkeypatch):
    """Play the steps: for each alias, how many there are, or an error."""
    left = {}
    made = []

    def step(using):
        made.append(using)
        if isinstance(left.get(using), Exception):
            raise left[using]
        left[using] = left.get(using, 0) - 1
        return left[using] > 0

    monkeypatch.setattr(repairs, "work", step)
    step.left, step.made = left, made
    return step


def test_at_rest_it_looks_now_and_then_only(work):
    repairer = Repairer(lambda: ["default"], look_seconds=0.05)
    repairer.repair()
    assert work.made == []
    assert repairer.next_at == inf, "only beside a look that is made anyway"

    deadline = monotonic() + 5
    while not work.made and monotonic() < deadline:
        repairer.repair()
    assert work.made == ["default"]
    assert repairer.next_at == inf


def test_asked_it_looks_at_once_into_each_outbox(work):
    repairer = Repairer(lambda: ["default", "other"], look_seconds=300)
    repairer.ask()
    assert repairer.next_at <= monotonic()

    repairer.repair()
    assert monotonic() - 1 < repairer.next_at < monotonic() + 1
    repairer.repair()

    assert work.made == ["default", "other"]
    assert repairer.next_at == inf


def test_asked_it_says_when_nothing_more_is_found(work):
    work.left["default"] = 3
    repairer = Repairer(lambda: ["default"], look_seconds=300)
    assert repairer.found_nothing
    repairer.ask()

    said = []
    while not repairer.found_nothing:
        said.append(repairer.repair())
    assert said == [True, True, False], "what the last step but one did is not looked for again"


def test_what_is_asked_for_during_a_step_is_looked_for_after_it(monkeypatch):
    repairer, made = Repairer(lambda: ["default"], look_seconds=300), []

    def step(using):
        made.append(using)
        if len(made) == 1:
            repairer.ask()
        assert not repairer.found_nothing, "a step is under way"
        return False

    monkeypatch.setattr(repairs, "work", step)
    repairer.ask()
    while repairer.next_at <= monotonic():
        repairer.repair()

    assert (len(made), repairer.next_at, repairer.found_nothing) == (2, inf, True)


def test_a_database_that_a_test_may_not_ask_is_passed_over(work, caplog):
    work.left["other"] = DatabaseOperationForbidden("no")
    repairer = Repairer(lambda: ["other", "default"], look_seconds=300)
    repairer.ask()
    while not repairer.found_nothing:
        repairer.repair()

    assert (work.made, caplog.text) == (["other", "default"], "")


def test_it_goes_on_while_there_is_something_to_do(work):
    work.left["default"] = 3
    repairer = Repairer(lambda: ["default"], look_seconds=300)
    repairer.ask()
    while repairer.next_at < inf:
        repairer.repair()

    assert work.made == ["default"] * 3


def test_a_step_that_fails_is_logged_and_tried_again(work, caplog):
    work.left["default"] = ValueError("no")
    repairer = Repairer(lambda: ["default"], look_seconds=300)
    repairer.ask()
    repairer.repair()

    assert "A repair in the outbox of the database 'default' was broken off" in caplog.text
    assert caplog.records[0].exc_info, "it is a fault of the code"
    assert repairer._next_look <= monotonic() + TAKEN_SECONDS


def test_without_an_outbox_and_before_the_app_is_ready_there_is_nothing_to_do(monkeypatch):
    repairer = Repairer(list, look_seconds=300)
    repairer.ask()
    repairer.repair()
    assert repairer.next_at == inf

    monkeypatch.setattr(repairs, "work", None)
    repairer.ask()
    repairer.repair()
