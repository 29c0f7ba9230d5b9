"""The form that adds an order."""

from django import forms
from django.db import transaction
from django.db.models import Max

from demo_site.shop.models import Customer, Order


class OrderForm(forms.Form):
    """Ask for what a draft needs; its number comes from the shop."""

    email = forms.EmailField(label="Customer's e-mail", initial="ada@example.com")
    total = forms.DecimalField(min_value=0, max_digits=10, decimal_places=2, initial="12.50")

    @transaction.atomic
    def save(self) -> Order:
        """Create the order, and its customer if the address is new."""
        customer, _ = Customer.objects.get_or_create(email=self.cleaned_data["email"])
        last = Order.objects.aggregate(last=Max("pk"))["last"] or 0
        return Order.objects.create(
            number=f"A-{last + 1}", total=self.cleaned_data["total"], customer=customer
        )
