"""The site as servers load it."""

import os

from django.core.wsgi import get_wsgi_application

from tests.acceptance.site import notes

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.acceptance.site.settings")
application = get_wsgi_application()
notes.note("loaded")
