"""Configure gunicorn to patch before it loads the site: Django needs that with ``--preload``."""

from gevent import monkey

monkey.patch_all()
