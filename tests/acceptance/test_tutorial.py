"""The package as it is installed, and the tutorial, followed with it from an empty directory."""

import email
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import django
import pytest

from tests.acceptance.tutorial import PAGE, Reader, with_free_ports
from tests.once import ONCE

pytestmark = ONCE

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "signal_dispatch"


def run(*command):
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Build the sdist, and from it the wheel, as ``make dist`` does.

    From a copy, since another run may build beside this one.
    """
    folder, source = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("source") / "copy"
    left = [".venv", ".tox", ".git", ".*_cache", "_build", "build", "dist", "*.egg-info"]
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*left, "__pycache__"))
    run("build", "--outdir", str(folder), str(source))
    return folder


@pytest.fixture(scope="session")
def wheel(built):
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as opened:
        (name,) = [n for n in opened.namelist() if n.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(opened.read(name))


def test_wheel_holds_every_file_of_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = opened.namelist()
    tracked = {
        str(path.relative_to(ROOT))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == tracked
    for wanted in ("py.typed", "migrations/0001_initial.py", "static/signal_dispatch/admin.css"):
        assert f"signal_dispatch/{wanted}" in names
    assert any(name.endswith("/delivery/change_form.html") for name in names)


def test_sdist_holds_what_it_takes_to_test_it_and_to_build_the_pages(built):
    (found,) = built.glob("*.tar.gz")
    with tarfile.open(found) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    wanted = {"README.md", "LICENSE", "SECURITY.md", "Makefile", "pyproject.toml"}
    wanted |= {
        "signal_dispatch/py.typed",
        "docs/conf.py",
        "docs/tutorial.md",
        "demo_site/manage.py",
    }
    assert wanted | {"tests/conftest.py", "tests/acceptance/test_tutorial.py"} <= names
    made = (".git", ".venv", "docs/_build", "demo_site/var")
    assert not [n for n in names if n.startswith(made) or "__pycache__" in n]


def test_metadata_says_what_it_is(metadata):
    assert metadata["Name"] == "django-signal-dispatch"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# signal_dispatch")
    extras = {"progress", "testing", "opentelemetry", "celery", "tasks", "rate"}
    assert extras <= set(metadata.get_all("Provides-Extra"))


def test_classifiers_are_the_versions_that_the_matrix_tests(metadata):
    classifiers = metadata.get_all("Classifier")
    matrix = re.findall(r"py(\d)(\d+)-django(\d)(\d)", (ROOT / "pyproject.toml").read_text())
    for python, minor, major, release in matrix:
        assert f"Programming Language :: Python :: {python}.{minor}" in classifiers
        assert f"Framework :: Django :: {major}.{release}" in classifiers
    assert len([c for c in classifiers if re.search(r":: (Django|Python) :: \d\.", c)]) == len(
        {m[:2] for m in matrix} | {m[2:] for m in matrix}
    )
    assert "Typing :: Typed" in classifiers


def test_installing_it_brings_django_requests_and_uritemplate_and_nothing_else(wheel):
    report = run(
        *("pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--dry-run", "--ignore-installed", "--report", "-", str(wheel)),
    )
    names = {
        re.sub(r"[-_.]+", "-", each["metadata"]["name"]).lower()
        for each in json.loads(report[report.index("{") :])["install"]
    }
    assert names == {
        "django-signal-dispatch",
        *("django", "asgiref", "sqlparse"),
        *("requests", "certifi", "charset-normalizer", "idna", "urllib3"),
        "uritemplate",
    }


def test_the_tutorial_can_be_followed_to_the_letter(wheel, tmp_path):
    # pip takes the wheel for the package's name, and the Django that these tests run on.
    major, minor = django.VERSION[:2]
    version = wheel.name.split("-")[1]
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(
        f"--find-links {wheel.parent.as_uri()}\n"
        f"django-signal-dispatch=={version}\nDjango=={major}.{minor}.*\n"
    )
    folder = tmp_path / "empty"
    folder.mkdir()
    text = PAGE.read_text()
    pip = {"CONSTRAINT": str(constraints), "DISABLE_PIP_VERSION_CHECK": "1", "NO_COMPILE": "1"}
    reader = Reader(folder, {f"PIP_{name}": value for name, value in pip.items()})
    try:
        reader.follow(with_free_ports(text, ["8000", "9000"]))
    finally:
        reader.close()

    done = Counter(reader.done)
    blocks = len(re.findall(r"^```\w", text, re.MULTILINE))
    assert blocks == done["shell"] + done["python"] + done["ini"] + done["text"] > 20
    (installed,) = reader.project.glob(".venv/lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as opened:
        for name in opened.namelist():
            if not name.endswith("/RECORD"):  # pip adds what it made itself
                assert (installed / name).read_bytes() == opened.read(name)
