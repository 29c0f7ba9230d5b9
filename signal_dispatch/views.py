"""Answer a monitor: whether calls flow."""

from http import HTTPStatus

from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from signal_dispatch.exceptions import InvalidSettings
from signal_dispatch.limits import Limits
from signal_dispatch.reports import report_on


@never_cache
@require_safe
# A database that can't be reached is an answer, too.
@transaction.non_atomic_requests
def health(request: HttpRequest, limits: Limits = Limits()) -> JsonResponse:  # noqa: B008 - frozen
    """Say how the outboxes stand: 200 where all is within the limits, else 503.

    Holds nothing that is not for everybody to see.
    """
    try:
        report = report_on(limits)
    except InvalidSettings:
        problems = ["The settings are faulty: 'manage.py check' says what is."]
        unread = {"healthy": False, "problems": problems, "databases": {}}
        return JsonResponse(unread, status=HTTPStatus.SERVICE_UNAVAILABLE)
    status = HTTPStatus.OK if report.healthy else HTTPStatus.SERVICE_UNAVAILABLE
    return JsonResponse(report.as_public_json(), status=status)
