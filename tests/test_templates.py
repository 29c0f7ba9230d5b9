"""What the templates say can be translated: every word stands in one of Django's i18n tags."""

import re
from pathlib import Path

import pytest
from django.template.base import Lexer, TokenType

import signal_dispatch
from tests.once import ONCE

pytestmark = ONCE

TEMPLATES = Path(signal_dispatch.__file__).parent / "templates"
#: What people read in an attribute.
READ = "alt|aria-label|data-label|placeholder|title"
#: Units, names of columns and settings, and figures have one name in every language.
NAMES = {"ms", "uid", "p50", "p95", "alias", "key"}


def words(text):
    """Return the words that a template shows outside of i18n tags."""
    shown, translated = "", False
    # Names of classes, which stand in a tag of the page that is extended.
    text = re.sub(r"{% block bodyclass %}.*?{% endblock %}", "", text)
    for token in Lexer(text).tokenize():
        if token.token_type == TokenType.BLOCK:
            tag = token.contents.split()[0]
            translated = tag == "blocktranslate" or (translated and tag != "endblocktranslate")
        elif token.token_type == TokenType.TEXT and not translated:
            shown += token.contents
    read = re.findall(rf'\b(?:{READ})="([^"]*)"', shown)
    read += re.findall(r'<input type="submit"[^>]* value="([^"]*)"', shown)
    text = " ".join([re.sub(r"<[^>]*>", " ", shown), *read])
    return set(re.findall(r"[^\W\d_]\w*", re.sub(r"&\w+;", " ", text)))


@pytest.mark.parametrize("path", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.stem)
def test_a_template_says_nothing_that_can_t_be_translated(path):
    assert words(path.read_text()) - NAMES == set()


@pytest.mark.parametrize(
    "text",
    [
        "<p class='a'>Due {{ number }}</p>",
        '<td data-label="Due">{{ number }}</td>',
        '<input type="submit" class="default" value="Due">',
        "{% blocktranslate %}of{% endblocktranslate %} Due",
    ],
)
def test_words_outside_of_the_tags_are_found(text):
    assert words(text) == {"Due"}
