"""The shop's page, what its forms post to, and the admin."""

from django.contrib import admin
from django.urls import path

from demo_site.shop import views

urlpatterns = [
    path("", views.page, name="page"),
    path("orders/add/", views.add_order, name="add-order"),
    path("orders/pay/", views.pay_order, name="pay-order"),
    path("orders.json", views.orders_json, name="orders-json"),
    path("crm/", views.switch_crm, name="switch-crm"),
    path("admin/", admin.site.urls),
]
