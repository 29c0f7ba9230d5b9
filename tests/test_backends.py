"""How this process finds out that it runs tests; the backends themselves follow."""

import subprocess
import sys

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
