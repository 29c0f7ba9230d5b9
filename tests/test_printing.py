"""Where nobody reads on."""

import os

import pytest
from django.core.management import call_command

from signal_dispatch.clocks import DatabaseNow
from tests.deliveries import delivery
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=["default", "other"])


@pytest.fixture(params=[-1, 1], ids=["at the end", "by the line"])
def broken_pipe(request):
    """Give what writes into a pipe that nobody reads, at the end or line by line."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", buffering=request.param) as stream:
        yield stream


def test_a_list_that_nobody_reads_to_its_end_is_no_error(declare, broken_pipe):
    declare(Order)

    call_command("dispatch_list", stdout=broken_pipe)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_exit_code_says_how_it_stands_though_nobody_reads_it(declare, broken_pipe, form):
    declare(Order)
    call_command("dispatch_status", *form, stdout=broken_pipe)
    delivery(available_at=DatabaseNow(-86400))

    with pytest.raises(SystemExit, match="1"):
        call_command("dispatch_status", *form, stdout=broken_pipe)
