"""What the pages on trust and words say must be there: tests, versions, states."""

import re
from pathlib import Path

from signal_dispatch.models import State
from signal_dispatch.outcomes import Outcome
from tests.howto.pages import DOCS
from tests.once import ONCE

pytestmark = ONCE

ROOT = DOCS.parent


def text_of(name):
    return (DOCS / f"{name}.md").read_text()


def test_the_threat_model_names_tests_that_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text_of("explanation/threat-model"))
    assert len(named) > 30
    for path, name in named:
        source = (ROOT / path).read_text()
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{path}::{name}"


def test_each_threat_names_a_test():
    tried = text_of("explanation/threat-model").partition("## What a user can try")[2]
    tried, _, _ = tried.partition("## What is not protected")
    threats = tried.split("\n\n**")[1:]
    assert len(threats) >= 12
    assert [threat for threat in threats if "::test_" not in threat] == []


def test_supported_versions_are_those_of_the_package():
    page = text_of("explanation/deprecation-policy")
    classifiers = re.findall(
        r'"(?:Framework|Programming Language) :: (Python|Django) :: (\d+\.\d+)"',
        (ROOT / "pyproject.toml").read_text(),
    )
    assert len(classifiers) == 6
    pythons = [version for of, version in classifiers if of == "Python"]
    djangos = [version for of, version in classifiers if of == "Django"]
    assert f"| Python | {pythons[0]} to {pythons[-1]} |" in page
    assert f"| Django | {', '.join(djangos)} |" in page


def test_the_glossary_tells_each_word_once():
    words = re.findall(r"^\| ([^|]+) \|", text_of("glossary"), re.MULTILINE)
    words = [word for word in words if word not in ("word", "---")]
    assert len(words) == len(set(words)) > 50
    assert set(State.values) <= set(words)
    outcomes = {name for name in vars(Outcome) if isinstance(vars(Outcome)[name], classmethod)}
    assert {"retry", "rejected", "recreate", "delivered"} == outcomes <= set(words)


def test_pages_of_trust_are_reached_from_the_top():
    security = Path(ROOT / "SECURITY.md").read_text()
    assert "(docs/explanation/threat-model.md)" in security
    assert "(docs/explanation/deprecation-policy.md)" in security
