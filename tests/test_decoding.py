import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signal_dispatch.decoding import decoded
from signal_dispatch.exceptions import SendError
from tests.once import ONCE

pytestmark = ONCE

TEXT = b'{"id": "c-7"}' * 1000


def bare_deflate(content):
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


PACKERS = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


def in_chunks(content, size):
    return [content[start : start + size] for start in range(0, len(content), size)]


def whole(content, encoding, size=8192):
    return b"".join(decoded(in_chunks(content, size), encoding))


@pytest.mark.parametrize("size", [1, 2, 7, 8192])
@pytest.mark.parametrize("coding", PACKERS)
def test_content_comes_out_as_it_went_in(coding, size):
    assert whole(PACKERS[coding](TEXT), coding, size) == TEXT


@given(st.binary(max_size=2000), st.integers(1, 50), st.sampled_from(sorted(PACKERS)))
def test_any_content_comes_out_as_it_went_in(content, size, coding):
    assert whole(PACKERS[coding](content), coding, size) == content


def test_encoding_is_read_in_any_case():
    assert whole(gzip.compress(TEXT), " GZip ") == TEXT


def test_deflate_without_its_wrapping_is_read_too():
    assert whole(bare_deflate(TEXT), "deflate") == TEXT
    assert whole(bare_deflate(TEXT), "deflate", 1) == TEXT


def test_gzip_of_several_parts_is_read_whole():
    assert whole(gzip.compress(b"one, ") + gzip.compress(b"two"), "gzip", 3) == b"one, two"


@pytest.mark.parametrize("padding", [b"\0", b"\0" * 512, b"\r\n", b"x"])
@pytest.mark.parametrize("coding", PACKERS)
def test_padding_behind_the_end_is_left_out(coding, padding):
    assert whole(PACKERS[coding](TEXT) + padding, coding, 5) == TEXT


@pytest.mark.parametrize("coding", PACKERS)
def test_no_content_is_none_in_any_encoding(coding):
    assert whole(b"", coding) == b""


@pytest.mark.parametrize("encoding", ["", "identity", "br", "zstd", "gzip, gzip", "klingon"])
def test_what_was_not_asked_for_stays_as_it_came(encoding):
    assert whole(gzip.compress(TEXT), encoding) == gzip.compress(TEXT)


@pytest.mark.parametrize("coding", PACKERS)
@pytest.mark.parametrize(
    "broken", [b"<html>", b"{", PACKERS["gzip"](TEXT)[:-9], zlib.compress(TEXT)[:-9]]
)
def test_content_that_is_not_what_it_says_is_told(coding, broken):
    with pytest.raises(SendError, match=rf"not valid {coding}, or not whole") as caught:
        whole(broken, coding)

    assert caught.value.error_class == "protocol"


@pytest.mark.parametrize("coding", PACKERS)
def test_no_piece_of_a_bomb_is_big(coding):
    bomb = PACKERS[coding](b"\0" * 20_000_000)

    sizes = [len(piece) for piece in decoded(in_chunks(bomb, 8192), coding)]

    assert sum(sizes) == 20_000_000
    assert max(sizes) <= 64 * 1024
