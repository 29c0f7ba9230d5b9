"""The admin, and nothing else: tests that need a view bring their own URLs."""

from django.contrib import admin
from django.urls import path

urlpatterns = [path("admin/", admin.site.urls)]
