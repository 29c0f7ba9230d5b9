"""Run the CRM: ``python -m demo_site.crm --port 8001 --control-port 8002``.

The variable ``CRM_SECRET`` holds the secret that it shares with the shop.
"""

import argparse
import contextlib
import os
import threading

from demo_site.crm.handlers import CRM


def main() -> None:
    """Serve until the process is told to end."""
    parser = argparse.ArgumentParser(prog="demo_site.crm", description=__doc__)
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--control-port", type=int, default=8002)
    arguments = parser.parse_args()

    if not os.environ.get("CRM_SECRET"):
        parser.error("Set CRM_SECRET to the secret of the shop: whsec_ and base64.")
    crm = CRM(arguments.port, arguments.control_port, [os.environ["CRM_SECRET"]])
    crm.api.open()
    crm.control.open()
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    main()
