"""Write spans of time as people take them in."""

from django.utils.translation import gettext as _

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def span(seconds: float) -> str:
    """Write so many seconds in one or two units that a person takes in at a glance."""
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return _("%d s") % whole
    if whole < _HOUR:
        return _("%d min") % (whole // _MINUTE)
    if whole < _DAY:
        hours, minutes = whole // _HOUR, whole % _HOUR // _MINUTE
        return _("%(hours)d h %(minutes)d min") % {"hours": hours, "minutes": minutes}
    return _("%(days)d d %(hours)d h") % {"days": whole // _DAY, "hours": whole % _DAY // _HOUR}
