"""The site as a worker of Celery loads it."""

import os

from tests.acceptance import process
from tests.acceptance.celery_app import app

__all__ = ["app"]

process.set_up(os.environ["SITE_URL"])
