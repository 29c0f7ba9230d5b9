"""The design's examples, letter for letter, in a project of their own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.once import ONCE

pytestmark = ONCE

PRINTED = Path(__file__).with_name("printed")

MODELS = """
from django.db import models


class Customer(models.Model):
    email = models.EmailField()


class Order(models.Model):
    number = models.CharField(max_length=20)
    status = models.CharField(max_length=20, default="draft")
    total = models.DecimalField(max_digits=9, decimal_places=2)
    customer = models.ForeignKey(Customer, models.CASCADE, null=True)
    crm_id = models.CharField(max_length=20, blank=True)
"""

# An Ellipsis stands in the printed INSTALLED_APPS for what a site has already.
SETTINGS = """
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    *(app for app in INSTALLED_APPS if app is not ...),
    "contacts",
]
DATABASES = {"default": {
    "ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:",
    "OPTIONS": {"transaction_mode": "IMMEDIATE"},
}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "printed"
"""

CONTACTS_TEST = """
from django.contrib.auth.models import User


def test_a_contact_is_created_patched_and_deleted_by_the_id_it_was_given(
    db, deliveries, mock_endpoint
):
    hubspot = mock_endpoint("hubspot")
    hubspot.reply(201, json={"id": "501"}, method="POST", path="contacts")
    hubspot.reply(200, json={"id": "501"}, method="PATCH", path="contacts/501")
    hubspot.reply(204, method="DELETE", path="contacts/501")

    user = User.objects.create(username="u", email="u@example.com")
    user.first_name = "Ada"
    user.save()
    user.delete()
    deliveries.send()

    assert [(c.method, c.path) for c in hubspot.calls] == [
        ("POST", "contacts"), ("PATCH", "contacts/501"), ("DELETE", "contacts/501"),
    ]
    assert hubspot.calls[1].json == {"email": "u@example.com", "first_name": "Ada"}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Put the printed files where the comments in them say they stand."""
    root = tmp_path_factory.mktemp("printed")
    files = {
        "settings.py": "import os\n\n" + printed("settings") + SETTINGS,
        "shop/__init__.py": "",
        "shop/models.py": MODELS,
        "shop/dispatches.py": printed("shop_dispatches"),
        "contacts/__init__.py": "",
        "contacts/dispatches.py": printed("contacts_dispatches"),
        "test_shop.py": "from shop.models import Order\n\n" + printed("test_shop"),
        "test_contacts.py": CONTACTS_TEST,
    }
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


def printed(name):
    return (PRINTED / f"{name}.py.txt").read_text()


def run(project, *command):
    here = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "settings",
            "CRM_TOKEN": "t0ken",
            "PYTHONPATH": os.pathsep.join([str(project), here]),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_printed_tests_pass(project):
    result = run(project, "pytest", "-q", "-p", "no:cacheprovider")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout


def test_the_printed_project_has_nothing_to_complain_of(project):
    result = run(project, "django", "check", "--fail-level", "WARNING")

    assert result.returncode == 0, result.stdout + result.stderr
    ids = re.findall(r"signal_dispatch\.[EWI]\d+", re.sub("silence .*", "", result.stderr))
    assert set(ids) <= {"signal_dispatch.I004"}, "of bulk operations it is told, which is no fault"


def test_the_printed_mappings_are_listed(project):
    result = run(project, "django", "dispatch_list")

    assert "shop.OrderToCRM" in result.stdout, result.stdout + result.stderr
    assert "contacts/{remote_id}" in result.stdout
    assert "t0ken" not in result.stdout
