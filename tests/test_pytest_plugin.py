"""Projects of their own, whose tests run in processes of their own: with pytest and without."""

import os
import subprocess
import sys
from textwrap import dedent

import pytest

from tests.once import ONCE

pytestmark = ONCE

SETTINGS = """
    SECRET_KEY = "for tests only"
    INSTALLED_APPS = ["django.contrib.contenttypes", "signal_dispatch", "shop"]
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": "shop.sqlite3",
            "TEST": {"NAME": "shop.sqlite3"},
            "OPTIONS": {"timeout": 20},
        }
    }
    SIGNAL_DISPATCH_ENDPOINTS = {"crm": {"URL": "https://crm.invalid/api/"}}
    USE_TZ = True
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""
MODELS = """
    from django.db import models

    class Order(models.Model):
        number = models.CharField(max_length=20)
        crm_id = models.CharField(max_length=20)
"""
DISPATCHES = """
    from signal_dispatch import ModelDispatch, register
    from shop.models import Order

    @register(Order)
    class OrderToCRM(ModelDispatch):
        endpoint = "crm"
        path = "orders"
        fields = ["number"]

        def handle_response(self, delivery, response):
            Order.objects.filter(pk=delivery.object_pk).update(crm_id=response.json()["id"])
"""


@pytest.fixture
def project(tmp_path):
    """Write files into a directory, and run a module of Python there."""

    def project(*command, files, settings=""):
        for name, text in files.items():
            target = tmp_path / name
            target.parent.mkdir(exist_ok=True)
            target.write_text(dedent(text))
        (tmp_path / "pytest.ini").write_text(
            "[pytest]\naddopts = --strict-markers -p no:cacheprovider\nfilterwarnings = error\n"
        )
        ours = ("PYTEST_", "DJANGO_", "DATABASE")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        if settings:
            inherited["DJANGO_SETTINGS_MODULE"] = settings
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env={**inherited, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    return project


@pytest.fixture
def shop(project):
    """Run a module of Python in a project that has the app and a dispatch."""

    def shop(*command, tests, conftest=""):
        files = {
            "site_settings.py": SETTINGS,
            "shop/__init__.py": "",
            "shop/models.py": MODELS,
            "shop/dispatches.py": DISPATCHES,
            "shop/test_shop.py": tests,
            "conftest.py": conftest,
        }
        return project(*command, settings="site_settings", files=files)

    return shop


def passed(done, number):
    text = done.stdout + done.stderr
    assert done.returncode == 0, text
    assert f"{number} passed" in text or (f"Ran {number} test" in text and "OK" in text), text
    return text


# Projects that do not use the app.


def test_a_project_without_django_is_left_alone(project):
    tests = """
        import sys

        def test_nothing_of_the_package_is_loaded_but_its_plugin():
            assert "signal_dispatch.pytest_plugin" in sys.modules
            assert "signal_dispatch.models" not in sys.modules
            assert "signal_dispatch.testing" not in sys.modules
    """
    passed(project("pytest", files={"test_plain.py": tests}), 1)
    passed(project("pytest", "-p", "no:django", files={"test_plain.py": tests}), 1)


def test_a_django_project_without_the_app_is_left_alone(project):
    tests = """
        import sys
        import pytest
        from django.contrib.contenttypes.models import ContentType

        @pytest.mark.django_db(transaction=True)
        def test_the_database_works():
            assert ContentType.objects.count() >= 0
            assert "signal_dispatch.testing" not in sys.modules
    """
    settings = SETTINGS.replace('"signal_dispatch", "shop"', "")
    files = {"site_settings.py": settings, "test_plain.py": tests}
    passed(project("pytest", settings="site_settings", files=files), 1)


@pytest.mark.parametrize("fixture", ["deliveries", "mock_endpoint"])
def test_without_the_app_the_fixtures_say_what_is_missing(project, fixture):
    settings = SETTINGS.replace('"signal_dispatch", "shop"', "")
    files = {"site_settings.py": settings, "test_plain.py": f"def test_it(db, {fixture}): pass"}
    done = project("pytest", settings="site_settings", files=files)

    assert 'Add "signal_dispatch" to INSTALLED_APPS' in done.stdout
    assert "explicit app_label" not in done.stdout


# Suites that know nothing of the package stay green.

OLD_SUITE = """
    import threading
    from django.test import TestCase, TransactionTestCase
    from shop.models import Order

    class InATransaction(TestCase):
        def test_save(self):
            with self.captureOnCommitCallbacks(execute=True) as callbacks:
                order = Order.objects.create(number="A-1")
            order.delete()
            self.assertEqual(callbacks, [])

    class WithRealCommits(TransactionTestCase):
        def test_save(self):
            Order.objects.create(number="A-1").delete()
            self.assertEqual(threading.active_count(), 1)
"""


@pytest.mark.parametrize("runner", [("pytest",), ("django", "test")])
def test_an_existing_suite_stays_green(shop, runner):
    passed(shop(*runner, tests=OLD_SUITE), 2)


# The runner of Django, without pytest.


def test_all_of_it_works_under_the_runner_of_django(shop):
    tests = """
        import threading
        from django.test import TestCase, TransactionTestCase
        from signal_dispatch.models import Delivery
        from signal_dispatch.testing import Deliveries, DispatchTestMixin, drain, mock_endpoint
        from signal_dispatch.exceptions import EndpointNotMocked
        from shop.models import Order

        class InATransaction(DispatchTestMixin, TestCase):
            def test_send(self):
                self.mock_endpoint("crm").reply(201, json={"id": "c-7"})
                order = Order.objects.create(number="A-1")
                self.deliveries.send()
                order.refresh_from_db()
                self.assertEqual(order.crm_id, "c-7")

            def test_captured(self):
                self.mock_endpoint("crm").reply(201, json={"id": "c-7"})
                with self.captureOnCommitCallbacks(execute=True):
                    Order.objects.create(number="A-1")
                self.assertEqual(self.deliveries[0].state, "delivered")

        class WithoutTheMixin(TestCase):
            def test_send(self):
                Order.objects.create(number="A-1")
                with self.assertRaisesRegex(EndpointNotMocked, "does not mock it"):
                    Deliveries().send()

        class WithRealCommits(DispatchTestMixin, TransactionTestCase):
            def test_drain(self):
                self.mock_endpoint("crm").reply(201, json={"id": "c-7"})
                order = Order.objects.create(number="A-1")
                self.assertGreater(threading.active_count(), 1)
                drain()
                order.refresh_from_db()
                self.assertEqual(order.crm_id, "c-7")
                self.assertEqual(threading.active_count(), 1)

            def _fixture_teardown(self):
                assert threading.active_count() == 1, "threads run while the database is flushed"
                super()._fixture_teardown()

            def test_without_drain(self):
                self.mock_endpoint("crm").reply(201, json={"id": "c-7"})
                Order.objects.create(number="A-1")
    """
    text = passed(shop("django", "test", tests=tests), 5)
    assert "pytest" not in text


def test_a_send_without_any_import_of_the_test_kit_is_kept_off_the_network(shop):
    tests = """
        import sys
        from django.test import TransactionTestCase
        from signal_dispatch.backends import backends
        from signal_dispatch.exceptions import EndpointNotMocked
        from signal_dispatch.models import Delivery
        from shop.models import Order

        class WithRealCommits(TransactionTestCase):
            def test_somebody_starts_the_backend(self):
                assert "signal_dispatch.testing" not in sys.modules
                Order.objects.create(number="A-1")
                with self.assertRaises(EndpointNotMocked):
                    backends["default"].drain(10)
                backends["default"].stop()
                self.assertEqual(Delivery.objects.get().attempts, 0)
    """
    passed(shop("django", "test", tests=tests), 1)


# The plugin.


def test_threads_end_before_the_database_is_flushed(shop):
    conftest = """
        import threading
        import pytest
        from django.test import TransactionTestCase

        flush = TransactionTestCase._fixture_teardown

        def checked(self):
            names = [thread.name for thread in threading.enumerate()]
            assert not [name for name in names if name.startswith("signal_dispatch")]
            flush(self)

        TransactionTestCase._fixture_teardown = checked

        @pytest.fixture(autouse=True)
        def early(mock_endpoint):
            crm = mock_endpoint("crm")
            crm.reply(201, json={"id": "c-7"})
            return crm
    """
    tests = """
        import threading
        import pytest
        from shop.models import Order

        def save():
            Order.objects.create(number="A-1")
            assert threading.active_count() > 1

        @pytest.mark.django_db(transaction=True)
        def test_by_marker():
            save()

        def test_by_fixture(transactional_db):
            save()

        def test_by_live_server(live_server):
            Order.objects.create(number="A-1")

        def test_without_a_database():
            pass
    """
    passed(shop("pytest", tests=tests, conftest=conftest), 4)


def test_what_a_thread_met_is_an_error_at_tear_down(shop):
    tests = """
        import pytest
        from shop.models import Order
        from signal_dispatch.backends import backends

        def test_without_a_reply(transactional_db, mock_endpoint):
            mock_endpoint("crm")
            Order.objects.create(number="A-1")
            backends["default"]._worker.finish(10)

        def test_the_next_one_is_not_concerned(transactional_db):
            assert Order.objects.count() == 0
    """
    done = shop("pytest", tests=tests)
    assert "ERROR" in done.stdout
    assert "EndpointNotMocked: Endpoint 'crm' was called with POST orders" in done.stdout
    assert "2 passed, 1 error" in done.stdout


def test_backends_that_the_test_started_itself_are_stopped(shop):
    tests = """
        import threading
        import pytest
        from shop.models import Order
        from signal_dispatch.backends import backends

        def test_starts(transactional_db):
            backends["default"].start()
            assert threading.active_count() == 2

        def test_next(db):
            assert threading.active_count() == 1
    """
    done = shop("pytest", tests=tests)
    passed(done, 2)


def test_the_marker_is_known_and_lifts_the_guard(shop):
    tests = """
        import pytest
        from signal_dispatch.backends import backends

        @pytest.mark.signal_dispatch_network
        def test_lifted():
            assert not backends.under_test

        def test_guarded():
            assert backends.under_test
    """
    passed(shop("pytest", tests=tests), 2)
    done = shop("pytest", "--markers", tests=tests)
    assert "@pytest.mark.signal_dispatch_network: let signal_dispatch send" in done.stdout


def test_it_works_without_the_plugin_for_django(shop):
    conftest = """
        import django
        from django.test.utils import setup_test_environment

        django.setup()
        setup_test_environment()
    """
    tests = """
        from signal_dispatch.backends import backends

        def test_guarded(mock_endpoint):
            assert backends.under_test
            mock_endpoint("crm")
    """
    passed(shop("pytest", "-p", "no:django", tests=tests, conftest=conftest), 1)
