"""Orders and customers in the admin: a save there is told to the CRM as any other."""

from django.contrib import admin

from demo_site.shop.models import Customer, Order


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    """Orders, with what the CRM answered."""

    list_display = ["number", "customer", "total", "status", "crm_id"]
    list_filter = ["status"]
    readonly_fields = ["crm_id"]


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    """Customers."""

    list_display = ["email"]
