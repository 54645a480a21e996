"""Recognizes a file that is not UTF-8 text by its first bytes, and names a command that reads it."""

import codecs
import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class FileFormat:
    """A format that is not UTF-8 text.

    Attributes:
        what: Phrase that completes "NAME is".
        command: Writes what is in the file; `{}` stands for its name, and without it the command reads stdin.
            Empty if no command makes a text of the file.
        is_document: Whether the command writes the text of a document, not the bytes that were packed.
        may_be_text: Whether the mark alone may also begin a text.
    """

    what: str
    command: str
    is_document: bool = False
    may_be_text: bool = False

    @property
    def is_unlike(self) -> str:
        """What the file is not, for a message."""
        return "UTF-8" if self.what.startswith("UTF") else "text"

    def reading(self, name: str | None) -> str:
        """Return the command for a file of this name; None is what another command writes."""
        if not self.command:
            return ""
        if "{}" in self.command:
            return self.command.replace("{}", "FILE" if name is None else shlex.quote(name))
        return f"... | {self.command}" if name is None else f"{self.command} < {shlex.quote(name)}"


UTF_16LE = FileFormat("UTF-16", "iconv -f UTF-16LE -t UTF-8")
UTF_16BE = FileFormat("UTF-16", "iconv -f UTF-16BE -t UTF-8")
ZIP = FileFormat("a zip archive", "unzip -p {}")
OFFICE = FileFormat("an Office document", "pandoc -t plain {}", is_document=True)
TAR = FileFormat("a tar archive", "tar -xOf {}")
# First bytes of a file.
MARKS = (
    (b"\x1f\x8b", FileFormat("compressed with gzip", "gzip -dc")),
    (b"BZh", FileFormat("compressed with bzip2", "bzip2 -dc", may_be_text=True)),
    (b"\xfd7zXZ\0", FileFormat("compressed with xz", "xz -dc")),
    (b"\x28\xb5\x2f\xfd", FileFormat("compressed with zstd", "zstd -dc")),
    (b"\x89PNG\r\n\x1a\n", FileFormat("an image", "")),
    (b"\xff\xd8\xff", FileFormat("an image", "")),
    (b"%PDF-", FileFormat("a PDF", "pdftotext {} -", is_document=True)),
    (
        b"PAR1",
        FileFormat(
            "a Parquet file",
            "python3 -c 'import pandas, sys; "
            'pandas.read_parquet(sys.argv[1]).to_json(sys.stdout, orient="records", lines=True)\' {}',
            may_be_text=True,
        ),
    ),
    # The mark of UTF-16 is the beginning of that of UTF-32.
    (codecs.BOM_UTF32_LE, FileFormat("UTF-32", "iconv -f UTF-32 -t UTF-8")),
    (codecs.BOM_UTF32_BE, FileFormat("UTF-32", "iconv -f UTF-32 -t UTF-8")),
    (codecs.BOM_UTF16_LE, FileFormat("UTF-16", "iconv -f UTF-16 -t UTF-8")),
    (codecs.BOM_UTF16_BE, FileFormat("UTF-16", "iconv -f UTF-16 -t UTF-8")),
)
ZIP_MARK = b"PK\x03\x04"
# Where the name of an archive's first file is, and with what it begins in a document of Word or Excel.
ZIP_NAME = 30
OFFICE_NAMES = (b"[Content_Types].xml", b"_rels/", b"docProps/", b"word/", b"xl/", b"ppt/")
TAR_MARK, TAR_PLACE = b"ustar", 257
# UTF-16 without a mark: the first characters are below U+0100.
CHARACTERS = 4


def format_of(beginning: bytes) -> FileFormat | None:
    """Return the format of a file that begins with these bytes; None if none of them is recognized."""
    for mark, format in MARKS:
        if beginning.startswith(mark):
            return format
    if beginning.startswith(ZIP_MARK):
        return OFFICE if beginning.startswith(OFFICE_NAMES, ZIP_NAME) else ZIP
    if beginning.startswith(TAR_MARK, TAR_PLACE) and b"\0" in beginning[:TAR_PLACE]:
        return TAR
    even, odd = beginning[: 2 * CHARACTERS : 2], beginning[1 : 2 * CHARACTERS : 2]
    if len(odd) == CHARACTERS and all(even) and not any(odd):
        return UTF_16LE
    return UTF_16BE if len(odd) == CHARACTERS and all(odd) and not any(even) else None
