"""Settings of the test suite: one database engine a run, chosen by the variable ``DATABASE``.

``sqlite`` (default, a file), ``sqlite-memory``, ``postgres`` or ``mariadb``.
"""

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from django import VERSION

from tests.services import MARIADB, POSTGRES

DATABASE = os.environ.get("DATABASE", "sqlite")

# Kept in the environment, so that a process which a test starts meets the same databases,
# while two runs side by side never do.
RUN = os.environ.setdefault("TEST_RUN", str(os.getpid()))


def _sqlite_file(alias: str) -> dict[str, Any]:
    path = str(_sqlite_directory() / f"{alias}.sqlite3")
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": path,
        # transaction_mode stays as a site that never heard of it has it.
        "OPTIONS": {
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=OFF",
        },
        "TEST": {"NAME": path},
    }


def _sqlite_directory() -> Path:
    """Return this run's directory; the process that made it takes it away."""
    directory = Path(tempfile.gettempdir(), f"signal_dispatch-{RUN}")
    try:
        directory.mkdir()
    except FileExistsError:
        return directory
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked child inherits this hook
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)
    return directory


def _sqlite_memory(alias: str) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


def _postgres(alias: str) -> dict[str, Any]:
    name = f"signal_dispatch_{RUN}_{alias}"
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": name,
        **POSTGRES,
        "TEST": {"NAME": name},
    }


def _mariadb(alias: str) -> dict[str, Any]:
    import pymysql

    pymysql.install_as_MySQLdb()
    name = f"signal_dispatch_{RUN}_{alias}"
    return {
        "ENGINE": "django.db.backends.mysql",
        "NAME": name,
        **MARIADB,
        "TEST": {"NAME": name, "CHARSET": "utf8mb4"},
    }


_ENGINES = {
    "sqlite": _sqlite_file,
    "sqlite-memory": _sqlite_memory,
    "postgres": _postgres,
    "mariadb": _mariadb,
}
DATABASES = {alias: _ENGINES[DATABASE](alias) for alias in ("default", "other")}

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    # Django Tasks, with workers that find their tasks in the database.
    *(["django_tasks"] if VERSION < (6, 0) else []),
    "django_tasks_db",
    "signal_dispatch",
    "tests.shop",
    "tests.fieldzoo",
]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": []}}
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
SECRET_KEY = "for tests only"
# Users are made by the hundred here, and nobody attacks them.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

SIGNAL_DISPATCH_ENDPOINTS = {
    "crm": {
        "URL": "https://crm.example.com/api/",
        "HEADERS": {"Authorization": "Bearer t0ken"},
    },
    "hubspot": {"URL": "https://api.hubapi.example/crm/v3/objects/"},
}
