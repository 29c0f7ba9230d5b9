"""Low-level savepoints, by the name that each supported Django has for them."""

from django.db import transaction

#: ``savepoint()`` until Django 6.0, ``savepoint_create()`` since 6.1.
create = getattr(transaction, "savepoint_create", None) or transaction.savepoint
