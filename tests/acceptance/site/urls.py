"""The site's pages: one that saves, one that only reads."""

import os
import threading

from django.http import HttpRequest, JsonResponse
from django.urls import path

from tests.shop.models import Order

# A file of the test's own, for the server that looks for changed files.
if os.environ.get("SITE_TOUCHED"):
    __import__(os.environ["SITE_TOUCHED"])


def save(request: HttpRequest) -> JsonResponse:
    """Save ``n`` orders whose numbers begin with ``prefix``."""
    for number in range(int(request.GET["n"])):
        Order.objects.create(number=f"{request.GET['prefix']}-{number}")
    return JsonResponse({"pid": os.getpid()})


def read(request: HttpRequest) -> JsonResponse:
    """Say how many orders there are, and what threads run in the process."""
    threads = [thread.name for thread in threading.enumerate()]
    return JsonResponse({"pid": os.getpid(), "orders": Order.objects.count(), "threads": threads})


urlpatterns = [path("save/", save), path("read/", read)]
