"""The thread that people write instead, kept to show what it does to a test run."""

import os
import subprocess
import sys

import pytest
from django.db import connection

NAIVE = """
import threading
import time

import pytest
from django.db.models.signals import post_save

from tests.shop.models import Order


def tell(sender, instance, **kwargs):
    def call():
        Order.objects.filter(pk=instance.pk).update(crm_id="c-7")
        answered.append(instance.pk)
        time.sleep(60)  # the next call is awaited, and the connection stays open

    threading.Thread(target=call, daemon=True).start()


answered = []


@pytest.mark.django_db(transaction=True)
def test_saves_with_a_bare_thread():
    post_save.connect(tell, sender=Order, weak=False)
    try:
        for number in range(20):
            Order.objects.create(number=str(number))
        until = time.monotonic() + 20
        while len(answered) < 20 and time.monotonic() < until:
            time.sleep(0.05)
    finally:
        post_save.disconnect(tell, sender=Order)
"""


@pytest.mark.skipif(
    "connection.vendor != 'postgresql'", reason="Only PostgreSQL refuses to drop a used database."
)
def test_a_bare_thread_keeps_the_test_database_from_being_dropped(tmp_path):
    (tmp_path / "test_naive.py").write_text(NAIVE)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", "pyproject.toml", "--rootdir", ".", tmp_path],
        env=os.environ | {"TEST_RUN": f"naive_{os.getpid()}"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    drop(f"signal_dispatch_naive_{os.getpid()}_default")
    assert "is being accessed by other users" in result.stdout + result.stderr


def drop(name):
    """Clear away what the run could not; its connections ended with its process."""
    import psycopg

    server = connection.settings_dict
    with psycopg.connect(
        host=server["HOST"],
        port=server["PORT"],
        user=server["USER"],
        password=server["PASSWORD"],
        dbname="postgres",
        autocommit=True,
    ) as session:
        session.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
