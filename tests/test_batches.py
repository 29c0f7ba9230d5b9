"""One answer that can't be stored must not keep the others from being recorded."""

import pytest
from django.db import DataError, InterfaceError, OperationalError
from django.utils import timezone

from signal_dispatch import settling
from signal_dispatch.batches import settle_all
from signal_dispatch.models import Attempt, Delivery, State
from signal_dispatch.settling import Settlement
from tests.deliveries import delivery

pytestmark = pytest.mark.django_db


def settlement(**values):
    made = delivery()
    tried = Attempt(
        delivery=made,
        number=1,
        started_at=timezone.now(),
        outcome="delivered",
        status_code=200,
        response_body=b"{}",
        **values,
    )
    return Settlement(made, State.DELIVERED, tried)


@pytest.fixture
def refused(monkeypatch):
    """Let the database refuse a batch that holds a body of poison."""
    settle, batches = settling.settle, []

    def refusing(settlements, using):
        batches.append(len(settlements))
        if any(s.attempt and s.attempt.response_body == b"poison" for s in settlements):
            raise DataError("poison")
        return settle(settlements, using)

    monkeypatch.setattr(settling, "settle", refusing)
    return batches


def test_a_sound_batch_is_written_at_once(refused):
    batch = [settlement(), settlement()]

    assert settle_all(batch, "default") == batch
    assert refused == [2]


def test_one_poisonous_answer_is_left_out_and_all_are_recorded(refused, caplog):
    batch = [settlement(), settlement(), settlement()]
    batch[1].attempt.response_body = b"poison"

    assert settle_all(batch, "default") == batch
    assert set(Delivery.objects.values_list("state", "attempts")) == {("delivered", 1)}
    bodies = {a.delivery_id: bytes(a.response_body) for a in Attempt.objects.all()}
    assert bodies == {s.delivery.pk: (b"" if s is batch[1] else b"{}") for s in batch}
    assert Delivery.objects.get(pk=batch[1].delivery.pk).reason.startswith(
        "The answer could not be stored"
    )
    assert f"delivery {batch[1].delivery.pk} is lost" in caplog.text


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_that_is_unwell_is_not_the_batchs_fault(monkeypatch, error):
    asked = []

    def failing(settlements, using):
        asked.append(len(settlements))
        raise error("gone away")

    monkeypatch.setattr(settling, "settle", failing)
    with pytest.raises(error):
        settle_all([settlement(), settlement()], "default")
    assert asked == [2]


def test_a_database_that_becomes_unwell_on_the_way_ends_it(monkeypatch):
    errors = [DataError("poison"), OperationalError("gone away")]

    def failing(settlements, using):
        raise errors.pop(0)

    monkeypatch.setattr(settling, "settle", failing)
    with pytest.raises(OperationalError):
        settle_all([settlement()], "default")
