"""Settings of the site. What differs between tests comes from the environment.

``SITE_CRM``: the URL of the remote API. ``SITE_OPTIONS``: the backend's ``OPTIONS``, as JSON.
``SITE_RESOLVER``: that of the entry ``tenant``, where there is to be one.
``SITE_IDLE``: how many seconds the bookkeeper sleeps at most, for a test that can't wait a minute.
"""

import json
import os

from tests import settings as tests_settings

DATABASES = {"default": tests_settings.DATABASES["default"]}
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "signal_dispatch",
    "tests.shop",
    "tests.acceptance.site.apps.SiteConfig",
]
ROOT_URLCONF = "tests.acceptance.site.urls"
WSGI_APPLICATION = "tests.acceptance.site.wsgi.application"
ALLOWED_HOSTS = ["127.0.0.1"]
SECRET_KEY = "for tests only"
USE_TZ = True
# So that errors of views stand in the server's output.
DEBUG = os.environ.get("SITE_DEBUG", "") == "1"

#: Seconds that a dead process's lease lasts here.
LEASE_SECONDS = 5
SIGNAL_DISPATCH_LEASE_SECONDS = LEASE_SECONDS
SIGNAL_DISPATCH_ENDPOINTS = {
    "crm": {
        "URL": os.environ.get("SITE_CRM", "http://127.0.0.1:9/"),
        "DEADLINE": 1,
        "TIMEOUT": 1,
        "RETRY": {"delays": [0] + [0.3] * 100, "jitter": 0},
        # Some of the tests let more attempts fail than it would stand.
        "BREAKER": None,
    }
}
if "SITE_RESOLVER" in os.environ:
    SIGNAL_DISPATCH_ENDPOINTS["tenant"] = {"RESOLVER": os.environ["SITE_RESOLVER"]}
SIGNAL_DISPATCH_BACKENDS = {
    "default": {
        "BACKEND": "signal_dispatch.backends.threads.ThreadsBackend",
        "OPTIONS": json.loads(os.environ.get("SITE_OPTIONS", "{}")),
    }
}
