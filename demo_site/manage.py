"""Django's command line for the shop: ``python demo_site/manage.py dispatch_list``."""

import os
import sys
from pathlib import Path

from django.core.management import execute_from_command_line


def main() -> None:
    """Run the command that stands in ``sys.argv``."""
    # A script finds its own directory first, which would make "shop" a package beside demo_site.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo_site.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
