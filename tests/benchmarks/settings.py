"""Settings of whatever is measured. What differs comes from the environment.

``BENCH_DATABASE``: name of the PostgreSQL database. ``BENCH_SINK``: URL of the sink.
``BENCH_BACKEND``: our backend, below ``signal_dispatch.backends``. ``BENCH_SENDERS``: calls at the
same time, for everybody. ``BENCH_REDIS``, ``BENCH_AMQP``:
URLs of the brokers; ``BENCH_QUEUE``: the queue there.
"""

import os
from importlib.util import find_spec

from tests.services import POSTGRES

SENDERS = int(os.environ.get("BENCH_SENDERS", "8"))

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("BENCH_DATABASE", "signal_dispatch_bench"),
        "CONN_MAX_AGE": None,
        **POSTGRES,
    }
}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "signal_dispatch",
    "tests.benchmarks.shop",
    *(
        name
        for name in ("django_tasks", "django_tasks_db", "django_q", "procrastinate.contrib.django")
        if find_spec(name.partition(".")[0])
    ),
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
SECRET_KEY = "for benchmarks only"
USE_TZ = True

SIGNAL_DISPATCH_ENDPOINTS = {
    "sink": {"URL": os.environ.get("BENCH_SINK", "http://127.0.0.1:9/"), "MAX_CONCURRENCY": SENDERS}
}
_BACKEND = os.environ.get("BENCH_BACKEND", "threads.ThreadsBackend")
SIGNAL_DISPATCH_BACKENDS = {"default": {"BACKEND": f"signal_dispatch.backends.{_BACKEND}"}}

if _BACKEND.startswith("celery"):
    import tests.benchmarks.contenders.celery_tasks  # noqa: F401 - as a site's __init__.py does

TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": []}}
Q_CLUSTER = {
    "name": "bench",
    "orm": "default",
    "workers": SENDERS,
    "poll": 0.05,
    "timeout": 60,
    "retry": 120,
    "bulk": 10,
    "save_limit": 0,
    "catch_up": False,
    "log_level": "ERROR",
}
