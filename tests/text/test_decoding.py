"""Tests that a byte order mark and the end of the last line are not part of a text."""

import pytest

from metal_gen.errors import UsageError
from metal_gen.text.decoding import Pipe, decode_text, without_line_end

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
    with pytest.raises(UsageError, match="it is UTF-16, not UTF-8") as caught:
        decode_text("h\u00e9".encode("utf-16"), "it")
    assert caught.value.hint == "convert it with iconv -f UTF-16 -t UTF-8"


@pytest.mark.parametrize(
    ("data", "what", "hint"),
    [
        (b"\x1f\x8b\x08\0\xff", "compressed with gzip", "gzip -dc < a.x | metal-gen score ..."),
        (b"%PDF-1.7\nall of it is ASCII", "a PDF", "pdftotext a.x - | metal-gen score ..."),
        (b"BZh91AY&SY\xff", "compressed with bzip2", "bzip2 -dc < a.x | metal-gen score ..."),
        (b"\x89PNG\r\n\x1a\n\0", "an image", "only text in UTF-8 can be read here"),
        (b"\xcf\xfa\xed\xfe\0", "a binary file", "only text in UTF-8 can be read here"),
    ],
)
def test_a_file_that_is_no_text_is_named(data, what, hint):
    with pytest.raises(UsageError) as caught:
        decode_text(data, "it", pipe=Pipe("a.x", "score ..."))
    assert caught.value.message == f"it is {what}, not text"
    assert caught.value.hint.endswith(hint)


def test_words_at_the_beginning_of_a_text_are_no_format():
    for text in ("BZhang", "PAR1 is a protein.", "PDF"):
        assert decode_text(text.encode(), "it") == text
