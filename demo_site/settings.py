"""Settings of the demo shop: SQLite, and one endpoint."""

import os
from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent
# Made by the tour; another place keeps two tours apart.
VAR_DIR = Path(os.environ.get("DEMO_VAR") or BASE_DIR / "var").resolve()

DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
SECRET_KEY = "guards nothing: the demo listens on this machine alone"  # noqa: S105

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "signal_dispatch",
    "demo_site.shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "demo_site.headers.ContentSecurityPolicyMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
ROOT_URLCONF = "demo_site.urls"
STATIC_URL = "static/"
TIME_ZONE = "UTC"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": VAR_DIR / "db.sqlite3",
        "OPTIONS": {
            # Requests and senders write side by side: with a transaction that begins by reading,
            # the write in its middle can be refused as "database is locked".
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
            "timeout": 20,
        },
    }
}

SIGNAL_DISPATCH_ENDPOINTS = {
    "crm": {
        "URL": os.environ.get("CRM_URL", "http://127.0.0.1:8001/"),
        # Each call is signed with it, and the CRM takes no other.
        "SECRETS": [secret for secret in [os.environ.get("CRM_SECRET")] if secret],
        # Seconds, where a real site waits for hours: nobody should wait before a demo. It tries
        # for ten minutes.
        "RETRY": {"delays": [0, 1, 1] + [2] * 300},
        # For the same reason: half a minute elsewhere.
        "BREAKER": {"pause": 3},
    },
}

# Where the CRM is told how to behave. A real remote has no such thing.
CRM_CONTROL_URL = os.environ.get("CRM_CONTROL_URL", "http://127.0.0.1:8002/")
