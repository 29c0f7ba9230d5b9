"""Run a management command of the benchmarks' site, after a module that declares something."""

import os
import sys
from importlib import import_module

import django
from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.benchmarks.settings")
    django.setup()
    import_module(sys.argv[1])
    execute_from_command_line([sys.argv[0], *sys.argv[2:]])
