"""The shop as a Django app."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """The app ``shop``; its ``dispatches`` module is found by signal_dispatch."""

    name = "demo_site.shop"
