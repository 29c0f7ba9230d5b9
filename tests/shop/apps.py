"""The app whose models the tests save."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """A small shop without dispatches: each test declares its own."""

    name = "tests.shop"
    label = "shop"
    default_auto_field = "django.db.models.BigAutoField"
