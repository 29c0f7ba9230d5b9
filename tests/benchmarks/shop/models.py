"""Two models of one kind: whoever is measured tells of the one, nobody of the other."""

from django.db import models


class _Sale(models.Model):
    number = models.CharField(max_length=50)
    status = models.CharField(max_length=20, default="paid")
    total = models.DecimalField(max_digits=10, decimal_places=2, default=12)
    customer = models.CharField(max_length=100, default="Ada Lovelace")
    email = models.EmailField(default="ada@example.com")

    class Meta:
        abstract = True


class Sale(_Sale):
    """Its saves make calls."""


class BareSale(_Sale):
    """Its saves make none."""


#: What a call carries.
FIELDS = ["number", "status", "total", "customer", "email"]
