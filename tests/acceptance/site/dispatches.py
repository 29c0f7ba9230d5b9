"""Tell the CRM of orders."""

from typing import Any

from signal_dispatch import ModelDispatch, register
from tests.shop.models import Order


@register(Order)
class Told(ModelDispatch[Any]):
    """One call for each save."""

    name = "shop.Told"
    endpoint = "crm"
    fields = ("number", "status")
