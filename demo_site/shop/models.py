"""What the shop sells to whom."""

from django.db import models


class Customer(models.Model):
    """Somebody who orders."""

    email = models.EmailField(unique=True)

    def __str__(self) -> str:
        return self.email


class Status(models.TextChoices):
    """How far an order is."""

    # Still being put together: nobody's business but the shop's.
    DRAFT = "draft"
    PAID = "paid"
    SHIPPED = "shipped"


class Order(models.Model):
    """An order, and the id that the CRM knows it by."""

    number = models.CharField(max_length=20, unique=True)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.DRAFT)
    total = models.DecimalField(max_digits=10, decimal_places=2)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT)
    crm_id = models.CharField("CRM id", max_length=20, blank=True, editable=False)

    def __str__(self) -> str:
        return self.number
