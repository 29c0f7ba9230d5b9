"""Transactions that the database ended; real ones are in acceptance/test_bulk_in_order.py."""

import pytest
from django.db import OperationalError, transaction

from signal_dispatch.deadlocks import TRIES, in_one_transaction

pytestmark = pytest.mark.django_db(transaction=True)


class _OfPsycopg(Exception):
    sqlstate = "40P01"


class _OfPsycopg2(Exception):
    pgcode = "40P01"


def _chained(cause):
    error = OperationalError("deadlock detected")
    error.__cause__ = cause
    return error


DEADLOCKS = [
    _chained(_OfPsycopg()),
    _chained(_OfPsycopg2()),
    OperationalError(1213, "Deadlock found when trying to get lock; try restarting transaction"),
]


class _Work:
    def __init__(self, *errors):
        self.errors = list(errors)
        self.times = 0

    def __call__(self, alone):
        self.times += 1
        self.alone = alone
        if self.errors:
            raise self.errors.pop(0)
        return "done"


@pytest.mark.parametrize("error", DEADLOCKS)
def test_what_a_deadlock_ended_is_done_again(error):
    work = _Work(error)

    assert in_one_transaction("default", work) == "done"
    assert (work.times, work.alone) == (2, True)


@pytest.mark.parametrize("errors", [[OperationalError("gone")], [DEADLOCKS[0]] * TRIES])
def test_nothing_else_is_and_not_for_ever(errors):
    work = _Work(*errors)

    with pytest.raises(OperationalError):
        in_one_transaction("default", work)

    assert work.times == len(errors)


def test_inside_of_a_transaction_all_of_that_is_gone():
    work = _Work(DEADLOCKS[0])

    with pytest.raises(OperationalError), transaction.atomic():
        in_one_transaction("default", work)

    assert (work.times, work.alone) == (1, False)


def test_what_is_committed_is_not_done_again():
    work = _Work()

    def hook():  # of the site: it writes to another table, say
        raise DEADLOCKS[0]

    def work_and_hook(alone):
        transaction.on_commit(hook)
        return work(alone)

    with pytest.raises(OperationalError):
        in_one_transaction("default", work_and_hook)

    assert work.times == 1
