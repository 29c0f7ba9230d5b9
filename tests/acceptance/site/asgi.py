"""The site as asynchronous servers load it."""

import os

from django.core.asgi import get_asgi_application

from tests.acceptance.site import notes

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.acceptance.site.settings")
application = get_asgi_application()
notes.note("loaded")
