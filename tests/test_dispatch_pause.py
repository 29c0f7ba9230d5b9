"""What the command says of a pause."""

from io import StringIO

import pytest
from django.core.management import call_command

from signal_dispatch.models import EndpointState

pytestmark = pytest.mark.django_db


def run(*arguments):
    out = StringIO()
    call_command("dispatch_pause", "crm", "--database", "default", *arguments, stdout=out)
    return out.getvalue().strip()


def test_a_pause_is_told_and_so_is_what_changes_it():
    where = "(database 'default')."

    assert run("--reason", "moving") == f"crm is paused {where}"
    assert run() == f"crm was paused already {where}"
    assert EndpointState.objects.get().pause_reason == "moving"
    assert run("--reason", "moved") == f"crm was paused already, and has the new reason {where}"
    assert EndpointState.objects.get().pause_reason == "moved"
    assert run("--resume") == f"crm is called again {where}"
    assert run("--resume") == f"crm was neither paused nor open {where}"
