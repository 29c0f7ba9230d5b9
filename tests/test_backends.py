"""How this process finds out that it runs tests; the backends themselves follow."""

import subprocess
import sys

import pytest

from signal_dispatch.backends import BaseBackend, backends
from signal_dispatch.testing import real_network
from tests import tenants

ASK_BEFORE_DURING_AND_AFTER = """
import django
django.setup()
from signal_dispatch.backends import backends
answers = [backends.under_test]
from django.test.utils import setup_test_environment, teardown_test_environment
answers.append(backends.under_test)
setup_test_environment()
answers.append(backends.under_test)
teardown_test_environment()
answers.append(backends.under_test)
print(*answers)
"""


def test_the_test_environment_of_django_is_recognised():
    # It leaves no public trace: this turns red where Django changes the private one.
    done = subprocess.run(
        [sys.executable, "-c", ASK_BEFORE_DURING_AND_AFTER],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["False", "False", "True", "False"], done.stderr


def test_an_endpoint_of_a_family_has_the_backend_of_its_entry(settings):
    settings.SIGNAL_DISPATCH_ENDPOINTS = {
        "crm": {"URL": "https://crm.example.com/"},
        "tenant": {"RESOLVER": tenants.PATH, "BACKEND": "slow"},
    }
    told = {name: backends.alias_for(name) for name in ("crm", "tenant", "tenant:42", "nobody:42")}

    assert told == {"crm": "default", "tenant": "slow", "tenant:42": "slow", "nobody:42": "default"}
    assert BaseBackend("slow").scope().names == ["tenant"]
    assert BaseBackend("default").scope().names == ["crm"]
    assert tenants.asked == []


def test_the_real_network_makes_it_production():
    assert backends.under_test
    assert not backends.wants_hints
    with real_network():
        assert not backends.under_test
        assert backends.wants_hints
    assert backends.under_test


class Stubborn(BaseBackend):
    """A backend that notes its end, and raises where its options say so."""

    ended = []

    def __init__(self, alias, *, raises=False):
        super().__init__(alias)
        self._raises = raises

    def stop(self):
        self.ended.append(self.alias)
        if self._raises:
            raise RuntimeError(self.alias)


def test_one_that_can_t_be_stopped_keeps_no_other_running(settings):
    path = f"{__name__}.Stubborn"
    settings.SIGNAL_DISPATCH_BACKENDS = {
        "a": {"BACKEND": path, "OPTIONS": {"raises": True}},
        "b": {"BACKEND": path},
    }
    made = [backends["a"], backends["b"]]
    with pytest.raises(RuntimeError, match="a"):
        backends.forget()

    assert Stubborn.ended == ["a", "b"]
    assert backends["b"] is not made[1], "settings are read again"
    settings.SIGNAL_DISPATCH_BACKENDS = {"b": {"BACKEND": path}}


SEE_WHAT_IS_LOADED = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
from django.conf import settings
settings.SIGNAL_DISPATCH_BACKENDS = {
    "broken": {"BACKEND": "tests.nowhere.Backend"},
    "celery": {"BACKEND": "signal_dispatch.backends.celery.CeleryBackend"},
}
import django
django.setup()
print("signal_dispatch.backends.celery" in sys.modules)
"""


def test_a_worker_of_another_engine_knows_its_task_as_soon_as_the_site_is_loaded():
    done = subprocess.run(
        [sys.executable, "-c", SEE_WHAT_IS_LOADED], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True"], done.stderr


def test_settings_that_can_not_be_read_keep_no_site_from_loading(settings):
    settings.SIGNAL_DISPATCH_BACKENDS = ["threads"]
    backends.load()
    assert backends.made() == []
