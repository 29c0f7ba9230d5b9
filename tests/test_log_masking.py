import logging

import pytest

from signal_dispatch.deadlines import deadline
from signal_dispatch.log_masking import LOGGERS
from tests.once import ONCE

pytestmark = ONCE

LOG = logging.getLogger("urllib3.connectionpool")


@pytest.fixture(autouse=True)
def _everything_is_logged(caplog):
    caplog.set_level(logging.DEBUG)


def test_what_is_no_url_stays(caplog):
    with deadline(60):
        LOG.debug('%s://%s:%s "%s %s %s" %s %s', "https", "a.example", 443, "PUT", "/a?b=c",
                  "HTTP/1.1", 200, None)  # fmt: skip
        LOG.debug("Starting new HTTP connection (%d): %s:%s", 1, "[::1]", "80")

    assert caplog.messages == [
        'https://a.example:443 "PUT [redacted] HTTP/1.1" 200 None',
        "Starting new HTTP connection (1): [::1]:80",
    ]


@pytest.mark.parametrize("value", ["/s3cret", "s3cret?x", "http://s3cret", ["s3cret"], b"s3cret"])
def test_anything_else_is_masked(caplog, value):
    with deadline(60):
        LOG.warning("(url=%s)", value)

    assert caplog.messages == ["(url=[redacted])"]


def test_values_by_name_are_masked_too(caplog):
    with deadline(60):
        LOG.debug("%(host)s %(url)s", {"host": "a.example", "url": "/s3cret"})

    assert caplog.messages == ["a.example [redacted]"]


def test_errors_are_left_out(caplog):
    with deadline(60):
        try:
            raise ValueError("s3cret")
        except ValueError:
            LOG.warning("Failed to parse headers", exc_info=True)

    assert "s3cret" not in caplog.text
    assert "Failed to parse headers" in caplog.text


def test_outside_nothing_is_masked(caplog):
    with deadline(60):
        pass
    LOG.debug("%s", "/open")

    assert caplog.messages == ["/open"]


def test_every_logger_of_urllib3_is_known():
    """A new version may bring another module that logs."""
    found = {
        name
        for name, logger in logging.root.manager.loggerDict.items()
        if name.startswith("urllib3.") and isinstance(logger, logging.Logger)
    }

    assert "urllib3.connectionpool" in found
    assert found <= set(LOGGERS)
