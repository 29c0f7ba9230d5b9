"""One model for each kind of table that a dispatch may be registered for, or must be refused."""

import uuid

from django.db import models

from signal_dispatch.managers import DispatchManager


class Customer(models.Model):
    """The far end of a look-up such as ``customer__email``."""

    name = models.CharField(max_length=100)
    email = models.EmailField(blank=True)


class Tag(models.Model):
    """The far end of a many-to-many relation."""

    name = models.CharField(max_length=50)


class Order(models.Model):
    """The ordinary case, with most kinds of fields."""

    number = models.CharField(max_length=50, unique=True)
    status = models.CharField(max_length=20, default="draft")
    total = models.DecimalField(max_digits=10, decimal_places=2, default=0)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, null=True, blank=True)
    crm_id = models.CharField(max_length=50, blank=True)
    notes = models.TextField(blank=True)
    data = models.JSONField(default=dict, blank=True)
    tags = models.ManyToManyField(Tag, blank=True)


class Subscription(models.Model):
    """A URL of a customer's own that wants to hear of its orders."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    url = models.URLField()
    token = models.CharField(max_length=200, blank=True)
    active = models.BooleanField(default=True)


class PriorityOrder(Order):
    """A multi-table child."""

    level = models.IntegerField(default=1)


class OrderProxy(Order):
    """A proxy."""

    class Meta:
        proxy = True


class Shipment(models.Model):
    """A key that is known before the first save, and is no number."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    order = models.ForeignKey(Order, on_delete=models.CASCADE)


class Seat(models.Model):
    """A key of two columns."""

    pk = models.CompositePrimaryKey("row", "number")
    row = models.CharField(max_length=2)
    number = models.IntegerField()
    taken = models.BooleanField(default=False)


class Place(models.Model):
    """An address that a remote API turns into coordinates."""

    address = models.CharField(max_length=200)
    lat = models.FloatField(null=True, blank=True)
    lon = models.FloatField(null=True, blank=True)


class Ticket(models.Model):
    """One whose bulk operations are told."""

    number = models.CharField(max_length=50, unique=True)
    status = models.CharField(max_length=20, default="new")
    row = models.CharField(max_length=2, null=True, blank=True)  # noqa: DJ001 - NULL is no conflict
    place = models.IntegerField(default=0)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, null=True, blank=True)

    objects = DispatchManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["row", "place"], name="shop_ticket_seat"),
        ]


class TicketProxy(Ticket):
    """Another way to use it."""

    class Meta:
        proxy = True


class SeasonTicket(Ticket):
    """A multi-table child; managers of a parent are inherited."""

    year = models.IntegerField(default=2026)


class Stamped(models.Model):
    """Abstract: has no table, so nothing can be registered for it."""

    stamped_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class Legacy(models.Model):
    """Unmanaged: its table is somebody else's."""

    name = models.CharField(max_length=50)

    class Meta:
        managed = False
        db_table = "legacy"
