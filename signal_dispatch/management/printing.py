"""Let nothing that others wrote act on the terminal that it is printed to."""

import unicodedata

#: Of control, format (which turn the direction of writing), and surrogates; ends of lines.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str) -> str:
    """Return the text with every character escaped that shows nothing but does something.

    A stored reason or name could else move the cursor, or feign a line of ours.
    """
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in _ACTING else char
        for char in text
    )
