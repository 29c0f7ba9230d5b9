"""Places where the package's own tests kill or stop a process."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from signal_dispatch import crashpoints
from tests.once import ONCE

pytestmark = ONCE


@pytest.fixture
def killed(monkeypatch):
    sent = []
    monkeypatch.setattr(signal, "pthread_kill", lambda *arguments: sent.append(arguments))
    return sent


def test_nothing_is_armed_unless_the_environment_says_so(killed):
    for point in crashpoints.POINTS:
        crashpoints.reached(point)

    assert killed == []


@pytest.mark.parametrize(
    ("text", "number"),
    [("after_claim", signal.SIGKILL), ("pause:after_claim", signal.SIGSTOP)],
)
def test_an_armed_point_ends_or_stops_this_process_once(killed, text, number):
    reached = crashpoints.armed(text)
    reached("after_mark")
    assert killed == []
    reached("after_claim")
    reached("after_claim")

    assert killed == [(threading.get_ident(), number)]


def test_a_number_says_which_time_is_meant(killed):
    reached = crashpoints.armed("after_mark:3")
    reached("after_mark")
    reached("after_mark")
    assert killed == []
    reached("after_mark")

    assert killed == [(threading.get_ident(), signal.SIGKILL)]


def test_a_misspelt_point_is_refused():
    with pytest.raises(ValueError, match="'after_clam'"):
        crashpoints.armed("after_clam")


def test_the_environment_is_read_at_import():
    code = "from signal_dispatch import crashpoints; crashpoints.reached('mid_request')"
    environment = os.environ | {"SIGNAL_DISPATCH_CRASH": "mid_request"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, check=False)

    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("point", crashpoints.POINTS)
def test_each_point_stands_somewhere_in_the_package(point):
    sources = Path(crashpoints.__file__).parent.rglob("*.py")

    assert any(f'reached("{point}")' in source.read_text() for source in sources)
