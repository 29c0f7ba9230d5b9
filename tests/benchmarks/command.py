"""Run a management command of the benchmarks' site, after a module that declares something.

``BENCH_COUNTED``: the file that is told at the end how many statements on our tables there were.
"""

import os
import sys
from importlib import import_module
from pathlib import Path

import django
from django.core.management import execute_from_command_line

from tests.benchmarks import taking

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.settings")
    django.setup()
    import_module(sys.argv[1])
    counting = os.environ.get("BENCH_COUNTED")
    counted = taking.count_statements() if counting else {}
    execute_from_command_line([sys.argv[0], *sys.argv[2:]])
    if counting:
        Path(counting).write_text(str(sum(counted.values())))
