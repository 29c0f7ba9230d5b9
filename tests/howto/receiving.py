"""Take what the shop sends, if it bears the shop's signature."""

import json

from django.conf import settings
from django.core.cache import cache
from django.http import HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from signal_dispatch.exceptions import SignatureError
from signal_dispatch.signing import verify


@csrf_exempt
@require_http_methods(["PUT"])
def order(request, number):
    """Store an order, once for each message."""
    try:
        verify(request.body, request.headers, settings.SHOP_SECRETS)
    except SignatureError as error:
        return JsonResponse({"error": str(error)}, status=401)
    message = f"webhook:{request.headers['webhook-id']}"
    if cache.get(message) is None:
        store(number, json.loads(request.body))
        cache.set(message, "taken", timeout=600)  # longer than both sides of the tolerance
    return HttpResponse(status=204)


def store(number, fields):
    """Do here what an order is for."""
