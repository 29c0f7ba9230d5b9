"""The URL of the health check, to be included where the site likes."""

from django.urls import path

from signal_dispatch import views

app_name = "signal_dispatch"
urlpatterns = [path("health/", views.health, name="health")]
