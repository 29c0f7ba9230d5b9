"""Build a body of fields and files (``multipart/form-data``, RFC 7578), all of it in memory."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from mimetypes import guess_type
from pathlib import PurePath
from typing import Any

from urllib3.fields import RequestField
from urllib3.filepost import encode_multipart_formdata

from signal_dispatch.exceptions import PayloadError

_BYTES = (bytes, bytearray, memoryview)


def encode(
    fields: Iterable[tuple[str, str]], files: Mapping[str, Any], boundary: str
) -> tuple[bytes, str]:
    """Encode fields, and files that are open; return the body with its content type.

    A file is bytes, a file object, or ``(filename, either of these[, content type])``; a list
    holds several of one name. File objects are closed, whatever happens. The same contents and
    boundary make the same bytes. Raises ``PayloadError`` for what is no file, and whatever
    reading one raises.
    """
    if not isinstance(files, Mapping):
        raise PayloadError(f"A dict of files is needed, not {files!r}.")
    with ExitStack() as opened:
        listed = [(str(name), file) for name, given in files.items() for file in _each(given)]
        # Before anything is said against any of them.
        for _name, file in listed:
            close = getattr(_content(file), "close", None)
            if close is not None:
                opened.callback(close)
        return encode_multipart_formdata([*_texts(fields), *_files(listed)], boundary)


def _each(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _content(file: Any) -> Any:
    return file[1] if isinstance(file, tuple) and len(file) in (2, 3) else file


def _texts(fields: Iterable[tuple[str, str]]) -> Iterator[RequestField]:
    for name, text in fields:
        field = RequestField(name, text.encode())
        field.make_multipart()
        yield field


def _files(listed: Iterable[tuple[str, Any]]) -> Iterator[RequestField]:
    for name, file in listed:
        content = _content(file)
        if content is not file:
            filename, _content_again, *rest = file
        else:  # what a descriptor was opened for has a number for its name
            path, rest = getattr(content, "name", None), []
            filename = PurePath(path).name if isinstance(path, str) else name
        guessed = guess_type(str(filename))[0] or "application/octet-stream"
        field = RequestField(name, _read(name, content), str(filename))
        field.make_multipart(content_type=rest[0] if rest else guessed)
        yield field


def _read(name: str, content: Any) -> bytes:
    if not isinstance(content, _BYTES) and not hasattr(content, "read"):
        kind = type(content).__name__
        raise PayloadError(f"'{name}' is {kind}, which is neither bytes nor an open file.")
    read = content if isinstance(content, _BYTES) else content.read()
    if not isinstance(read, _BYTES):
        raise PayloadError(f"'{name}' gave no bytes; open the file in binary mode, as with 'rb'.")
    return bytes(read)
