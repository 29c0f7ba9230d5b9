"""How the pages are built: ``make docs``. The sources are the pages here and those at the top.

Sphinx reads from the top directory, so that a link such as ``../README.md`` leads to the same page
here as where the repository is browsed. Nothing is fetched from anywhere.
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]

project = "signal_dispatch"
author = "signal_dispatch contributors"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md"]
# Whatever else may lie in a working copy is not even looked into.
exclude_patterns = [".*", "build", "demo_site", "dist", "docs/_build", "signal_dispatch", "tests"]

# Links to headings, by the names that hosts of repositories give them.
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"signal_dispatch {release}"
# The way in at the top of what is built.
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]
html_copy_source = False
