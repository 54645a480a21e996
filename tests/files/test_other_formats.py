"""Tests that files which are not UTF-8 text are recognized by their first bytes, and texts are not."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.files.utf8.other_formats import format_of

TEXT = "A fox went out in the rain. Caf\u00e9.\n"


def zipped(name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, TEXT)
    return file.getvalue()


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "what", "reading"),
    [
        (gzip.compress(TEXT.encode(), mtime=0), "compressed with gzip", "gzip -dc < 'a b'"),
        (bz2.compress(TEXT.encode()), "compressed with bzip2", "bzip2 -dc < 'a b'"),
        (lzma.compress(TEXT.encode()), "compressed with xz", "xz -dc < 'a b'"),
        (b"\x28\xb5\x2f\xfd\x04", "compressed with zstd", "zstd -dc < 'a b'"),
        (zipped("a.txt"), "a zip archive", "unzip -p 'a b'"),
        (zipped("[Content_Types].xml"), "an Office document", "pandoc -t plain 'a b'"),
        (tarred(), "a tar archive", "tar -xOf 'a b'"),
        (b"%PDF-1.7\n", "a PDF", "pdftotext 'a b' -"),
        (TEXT.encode("utf-16"), "UTF-16", "iconv -f UTF-16 -t UTF-8 < 'a b'"),
        (TEXT.encode("utf-16-le"), "UTF-16", "iconv -f UTF-16LE -t UTF-8 < 'a b'"),
        (TEXT.encode("utf-16-be"), "UTF-16", "iconv -f UTF-16BE -t UTF-8 < 'a b'"),
        (TEXT.encode("utf-32"), "UTF-32", "iconv -f UTF-32 -t UTF-8 < 'a b'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_format_is_named_with_a_command_that_reads_it(content, what, reading):
    found = format_of(content)
    assert (found.what, found.reading("a b")) == (what, reading)
    assert found.is_unlike == ("UTF-8" if what.startswith("UTF") else "text")
    expected = found.command.replace("{}", "FILE") if "{}" in found.command else f"... | {found.command}"
    assert found.reading(None) == expected


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0", b"\xff\xd8\xff\xe0\0\x10JFIF"])
def test_no_command_makes_a_text_of_an_image(content):
    found = format_of(content)
    assert (found.what, found.reading("a"), found.reading(None)) == ("an image", "", "")


@given(text=st.text(st.characters(min_codepoint=1, codec="utf-8")))
def test_a_text_is_no_format(text):
    found = format_of(text.encode())
    assert found is None or found.may_be_text or text.startswith("%PDF-")


@pytest.mark.parametrize("text", [b"", b"\xff", b"a\0", b"PK", b"\xef\xbb\xbfa text", b"x" * 257 + b"ustar"])
def test_what_is_no_format(text):
    assert format_of(text) is None
