"""The how-to on the retention."""

from datetime import timedelta

import pytest
from django.core.management import call_command

from signal_dispatch import pruning
from signal_dispatch.clocks import DatabaseNow
from signal_dispatch.conf import settings as ours
from signal_dispatch.models import Delivery
from tests.deliveries import delivery
from tests.howto.pages import Page
from tests.howto.pages_of_operations import commands, run
from tests.once import ONCE

pytestmark = [ONCE, pytest.mark.django_db(databases=["default", "other"])]

NAME = "how-to/delete-what-is-old"
PAGE = Page(NAME)
RETENTION = PAGE.block("timedelta")


def test_all_code_of_the_page_is_run():
    assert PAGE.left == []
    plain, narrowed = [options for _name, options in commands(NAME)]
    assert not plain.dry_run
    assert (narrowed.state, narrowed.endpoint, narrowed.dry_run) == ("failed", "old-crm", True)


def test_what_is_older_than_the_retention_goes(settings):
    settings.SIGNAL_DISPATCH_RETENTION = run(RETENTION)["SIGNAL_DISPATCH_RETENTION"]
    ended = {"available_at": None, "lane": ""}
    for days in (1, 3):
        at = DatabaseNow(-days * 86400)
        for state in ("delivered", "cancelled", "failed"):
            delivery(state=state, finished_at=at, **ended)
    call_command("dispatch_prune", verbosity=0)

    left = Delivery.objects.order_by("id").values_list("state", flat=True)
    assert list(left) == ["delivered", "cancelled", "failed", "failed"]


def test_defaults_and_steps_are_those_of_the_page():
    assert ours.retention == {"delivered": timedelta(days=7), "failed": timedelta(days=30)}
    assert (pruning.STEP, pruning.PASS_SECONDS, pruning.PAUSE_TIMES) == (500, 3600, 4)
