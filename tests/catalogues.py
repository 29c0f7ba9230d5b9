"""Write a catalogue of translations, as ``compilemessages`` would."""

import struct
from collections.abc import Mapping
from pathlib import Path


def write(directory: Path, language: str, messages: Mapping[str, str]) -> str:
    """Write it, and return the directory as ``LOCALE_PATHS`` takes it."""
    head = "Content-Type: text/plain; charset=UTF-8\nPlural-Forms: nplurals=2; plural=(n != 1);\n"
    pairs = sorted((k.encode(), v.encode()) for k, v in {"": head, **messages}.items())
    # The format is GNU gettext's: a head of seven numbers, two tables of length and place, texts.
    table = 7 * 4
    place = table + 2 * 8 * len(pairs)
    tables, texts = b"", b""
    for column in (0, 1):
        for pair in pairs:
            tables += struct.pack("<2I", len(pair[column]), place + len(texts))
            texts += pair[column] + b"\0"
    numbers = (0x950412DE, 0, len(pairs), table, table + 8 * len(pairs), 0, 0)
    file = directory / language / "LC_MESSAGES" / "django.mo"
    file.parent.mkdir(parents=True)
    file.write_bytes(struct.pack("<7I", *numbers) + tables + texts)
    return str(directory)
