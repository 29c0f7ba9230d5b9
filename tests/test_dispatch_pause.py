"""What the command says of a pause."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections

from signal_dispatch.management import outboxes
from signal_dispatch.models import EndpointState

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def run(*arguments, databases=("default",)):
    out = StringIO()
    named = [word for alias in databases for word in ("--database", alias)]
    call_command("dispatch_pause", "crm", *named, *arguments, stdout=out)
    return out.getvalue().strip()


def test_a_named_database_without_an_outbox_is_an_error_and_nothing_is_paused(monkeypatch):
    monkeypatch.setattr(outboxes, "has_outbox", lambda alias: alias == "default")
    with pytest.raises(CommandError, match=r"in other: run 'manage\.py migrate --database other'"):
        run(databases=["default", "other"])

    assert not EndpointState.objects.exists()


def test_a_database_that_is_away_is_a_sentence():
    def refuse(execute, *rest):
        raise OperationalError("server\n gone")

    with (
        connections["other"].execute_wrapper(refuse),
        pytest.raises(CommandError, match=r"'other' can't be reached: server gone"),
    ):
        run(databases=["other"])


def test_a_pause_is_told_and_so_is_what_changes_it():
    where = "(database 'default')."

    assert run("--reason", "moving") == f"crm is paused {where}"
    assert run() == f"crm was paused already {where}"
    assert EndpointState.objects.get().pause_reason == "moving"
    assert run("--reason", "moved") == f"crm was paused already, and has the new reason {where}"
    assert EndpointState.objects.get().pause_reason == "moved"
    assert run("--resume") == f"crm is called again {where}"
    assert run("--resume") == f"crm was neither paused nor open {where}"
