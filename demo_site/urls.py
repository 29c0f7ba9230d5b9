"""The shop's page, what its forms post to, the admin, and the health check of the calls."""

from django.contrib import admin
from django.urls import include, path

from demo_site.shop import views

urlpatterns = [
    path("", views.page, name="page"),
    path("orders/add/", views.add_order, name="add-order"),
    path("orders/pay/", views.pay_order, name="pay-order"),
    path("orders.json", views.orders_json, name="orders-json"),
    path("live.json", views.live_json, name="live-json"),
    path("crm/", views.switch_crm, name="switch-crm"),
    path("admin/", admin.site.urls),
    path("dispatch/", include("signal_dispatch.urls")),
]
