"""What the pages on trust and words say must be there: tests, versions, states."""

import re
from pathlib import Path

import pytest

from signal_dispatch.models import State
from signal_dispatch.outcomes import Outcome
from tests.howto.pages import DOCS
from tests.once import ONCE

pytestmark = ONCE

ROOT = DOCS.parent


def text_of(name):
    return (DOCS / f"{name}.md").read_text()


@pytest.mark.parametrize("page", ["threat-model", "guarantees"])
def test_tests_that_are_named_exist(page):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text_of(f"explanation/{page}"))
    assert len(named) > 30
    assert len(named) == text_of(f"explanation/{page}").count("::")
    for path, name in named:
        source = (ROOT / path).read_text()
        assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{path}::{name}"


def test_each_threat_names_a_test():
    tried = text_of("explanation/threat-model").partition("## What a user can try")[2]
    tried, _, _ = tried.partition("## What is not protected")
    threats = tried.split("\n\n**")[1:]
    assert len(threats) >= 12
    assert [threat for threat in threats if "::test_" not in threat] == []


def test_each_guarantee_says_what_holds_it_when_it_does_not_hold_and_what_shows_it():
    guarantees = text_of("explanation/guarantees").split("\n## ")[1:]
    assert [text.partition(". ")[0] for text in guarantees] == [str(n) for n in range(1, 11)]
    for text in guarantees:
        assert text.count("\n**Held by** ") == text.count("\n**Not held** ") == 1, text
        assert text.count("\n- `tests/") >= 3, text


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
