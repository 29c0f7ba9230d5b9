"""Why an intervention leaves deliveries as they are; the admin's tests show each reason."""

import pytest

from signal_dispatch.interventions import INTERVENTIONS
from signal_dispatch.leaving import REASONS, left_alone, sentence
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.once import ONCE

pytestmark = ONCE


def test_each_intervention_has_its_reasons():
    assert set(REASONS) == set(INTERVENTIONS)


@pytest.mark.django_db
def test_what_is_affected_needs_no_reason(django_assert_num_queries):
    made = [delivery(), delivery(state="delivered", available_at=None)]

    with django_assert_num_queries(1):
        left = left_alone("cancel", Delivery.objects.all(), made[:1])

    assert left == {"finished": 1}


def test_where_nothing_is_left_nothing_is_said():
    assert sentence({}) == ""
