"""Tests that a byte order mark and the end of the last line are not part of a text."""

import pytest

from metal_gen.errors import UsageError
from metal_gen.text.decoding import decode_text, without_line_end

MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", MARK])
def test_byte_order_mark_and_line_end_are_not_part_of_a_text(mark, end):
    assert decode_text(mark + b"hi" + end, "it", drops_line_end=True) == "hi"


@pytest.mark.parametrize(
    ("text", "rest"),
    [("a\n\n", "a\n"), ("a\r\n\r\n", "a\r\n"), ("a\n\r", "a\n\r"), ("a\r", "a\r"), ("\n", "")],
)
def test_one_line_end_is_removed(text, rest):
    assert without_line_end(text) == rest


def test_characters_within_a_text_stay():
    assert decode_text(MARK + MARK + b"a\r\nb" + MARK + b"\n", "it") == "\ufeffa\r\nb\ufeff\n"
    assert decode_text(MARK + b"a", "it", is_start=False) == "\ufeffa"


def test_other_encodings_are_refused_with_a_way_out():
    with pytest.raises(UsageError, match="the file x is not UTF-8: byte 1 is 0xe9") as caught:
        decode_text(b"h\xe9", "the file x")
    assert "iconv" in caught.value.hint
    with pytest.raises(UsageError) as caught:
        decode_text("hé".encode("utf-16"), "it")
    assert "-f utf-16 " in caught.value.hint
