"""The pages of Django's admin: what was to be sent, what became of it, and how to put it right."""

from signal_dispatch.admin.deliveries import DeliveryAdmin

__all__ = ["DeliveryAdmin"]
