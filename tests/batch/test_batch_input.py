"""Tests inputs: read as they arrive, decompressed, counted; other formats are refused with a command."""

import csv
import gzip
import io
import json
import os
import shutil
import subprocess
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.batch.input.file_kinds import require_json_lines
from metal_gen.batch.input.reading import read_lines
from metal_gen.batch.input.stream import InputStream
from metal_gen.errors import MetalGenError, UsageError

ROWS = b'{"prompt": "a"}\n\n{"prompt": "b"}'
LINES = [(1, b'{"prompt": "a"}'), (3, b'{"prompt": "b"}')]


def open_input(path, content=None):
    if content is not None:
        path.write_bytes(content)
    return InputStream(io.FileIO(path), str(path))


@pytest.fixture
def pipe():
    """Return a pipe input, and a function that writes to it; without bytes it closes its end."""
    reading, writing = os.pipe()

    def write(data=b""):
        if data:
            os.write(writing, data)
        else:
            os.close(writing)

    stream = InputStream(io.FileIO(reading), None)
    yield stream, write
    stream.close()


# As they come


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_file_is_read_to_its_end_and_counted(tmp_path, pack):
    stream = open_input(tmp_path / "in", pack(ROWS))
    stream.require_json_lines()
    assert stream.count_rows() == 2
    assert list(read_lines(stream)) == LINES
    assert stream.count_rows() == 2
    assert stream.read() == b""
    stream.close()


def test_packed_files_that_are_put_together_are_one(tmp_path):
    stream = open_input(tmp_path / "in", gzip.compress(ROWS + b"\n", mtime=0) + gzip.compress(ROWS))
    assert len(list(read_lines(stream))) == stream.count_rows() == 4
    stream.close()


def test_a_file_is_read_from_where_it_stands(tmp_path):
    (tmp_path / "in").write_bytes(b"before\n" + ROWS)
    file = io.FileIO(tmp_path / "in")
    file.seek(7)
    stream = InputStream(file, None)
    assert (stream.count_rows(), list(read_lines(stream))) == (2, LINES)
    stream.close()


def test_missing_bytes_are_waited_for_only_on_request(pipe):
    stream, write = pipe
    assert stream.read() is None
    assert not stream.wait(0)
    write(b"ab")
    assert stream.wait()
    assert (stream.read(), stream.read()) == (b"ab", None)
    write()
    assert stream.wait()
    assert (stream.read(), stream.read()) == (b"", b"")


def test_the_first_line_is_waited_for_and_read_again(pipe):
    stream, write = pipe
    write(b"\n  ")
    later = threading.Timer(0.05, write, [b'{"prompt": "a"}\nrest'])
    later.start()
    stream.require_json_lines()
    later.join()
    write()
    assert list(read_lines(stream)) == [(2, b'  {"prompt": "a"}'), (3, b"rest")]
    assert stream.count_rows() is None


@pytest.mark.parametrize("ends", [True, False])
def test_an_empty_input_is_not_another_format(pipe, ends):
    stream, write = pipe
    write(b"\n \n" if ends else b" ")
    write()
    stream.require_json_lines()
    assert list(read_lines(stream)) == []


def test_a_file_that_becomes_shorter_is_not_taken_for_one_that_ends(tmp_path):
    line = b'{"prompt": "a"}\n'
    stream = open_input(tmp_path / "in", line * 20_000)
    lines = read_lines(stream)
    first = next(lines)
    os.truncate(tmp_path / "in", 100_000)
    with pytest.raises(MetalGenError, match="has become shorter"):
        list(lines)
    assert first == (1, line.strip())
    stream.close()


@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_what_is_packed_and_damaged_is_an_error_of_the_input(tmp_path, damage):
    packed = bytearray(gzip.compress(b'{"prompt": "a"}\n' * 20_000, mtime=0))
    if damage == "cut":
        del packed[-20:]
    else:
        packed[60] ^= 0xFF
    stream = open_input(tmp_path / "in", bytes(packed))
    with pytest.raises(MetalGenError, match=r"the input cannot be read.*damaged|CRC"):
        list(read_lines(stream))
    assert stream.count_rows() is None
    stream.close()


@given(st.lists(st.sampled_from([b"a", b" ", b"", b"\r", b"b" * 3]), max_size=8), st.booleans())
def test_rows_are_counted_as_they_are_read(tmp_path_factory, written, ends):
    content = b"\n".join(written) + (b"\n" if ends else b"")
    stream = open_input(tmp_path_factory.mktemp("rows") / "in", content)
    assert stream.count_rows() == len(list(read_lines(stream)))
    stream.close()


# Other formats


def refusal(name, beginning):
    with pytest.raises(UsageError) as raised:
        require_json_lines(name, beginning)
    return raised.value


@pytest.mark.parametrize(
    ("beginning", "what"),
    [
        (b'[{"prompt": "a"}]', "a JSON array"),
        (b"\xef\xbb\xbf\n [\n", "a JSON array"),
        (b'{\n  "prompt": "a"\n}\n', "JSON over several lines"),
        (b"id,prompt\n1,a\n", "CSV"),
        (b'\xef\xbb\xbf"id";"prompt"\n', "CSV"),
        (b"id\tprompt\n", "CSV"),
        (b'"a"\n"b"\n', "a JSON text in each line"),
        (b"Tell me a story, please.\n", "plain text"),
        (b"caf\xe9\n", "plain text"),
        (b"17\n", "plain text"),
        ('{"prompt": "a"}\n'.encode("utf-16"), "UTF-16"),
        ('{"prompt": "a"}\n'.encode("utf-16-be"), "UTF-16"),
        ('{"prompt": "a"}\n'.encode("utf-32"), "UTF-32"),
        (gzip.compress(ROWS, mtime=0), "compressed with gzip"),
        (b"BZh91AY", "compressed with bzip2"),
        (b"\xfd7zXZ\0\0", "compressed with xz"),
        (b"\x28\xb5\x2f\xfd", "compressed with zstd"),
        (b"PK\x03\x04", "a zip archive"),
        (b"PAR1\x15", "a Parquet file"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"\x89PNG\0", "a binary file"),
        (b"\x89PNG\r\n\x1a\n\0\0", "an image"),
    ],
)
def test_another_format_is_refused_by_its_beginning(beginning, what):
    assert refusal("rows.x", beginning).message == f"rows.x is {what}, not JSON Lines"
    assert refusal(None, beginning).message == f"standard input is {what}, not JSON Lines"


@pytest.mark.parametrize("beginning", [b"PK\x03\x04\x14\0", b"\xd0\xcf\x11\xe0\0"])
@pytest.mark.parametrize("name", ["Rows.XLSX", "a.numbers", "a.xls"])
def test_a_spreadsheet_is_to_be_saved_as_csv(name, beginning):
    error = refusal(name, beginning)
    assert error.message == f"{name} is a spreadsheet, not JSON Lines"
    assert error.hint.startswith("save it as CSV")
    # A text keeps its own kind, whatever its name is.
    assert refusal(name, b"id,prompt\n1,a\n").message == f"{name} is CSV, not JSON Lines"


def test_rows_are_made_of_the_text_of_a_document():
    call = "pdftotext a.pdf - | jq -cR 'select(length > 0) | {prompt: .}' > a.jsonl"
    assert refusal("a.pdf", b"%PDF-1.7\n").hint.endswith(call)
    with pytest.raises(UsageError) as raised:
        require_json_lines("a.pdf", b"%PDF-1.7\n", "rank")
    assert raised.value.hint == "a row is a JSON object on a line of its own"


@pytest.mark.parametrize(
    "beginning", [b"", b"\n \n", b'{"a', b"{}", b'\xef\xbb\xbf{"a": 1}\n', b"\n{ \xff\n[", b'{"a": "\0"}\n\0']
)
def test_what_can_be_rows_is_left_to_be_read(beginning):
    require_json_lines("rows.csv", beginning)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a.json", "a.jsonl"),
        ("a.jsonl", "a.rows.jsonl"),
        ("a b", "'a b.jsonl'"),
        ("a.jsonl.bz2", "a.jsonl"),
        ("d/x.y.txt", "d/x.y.jsonl"),
    ],
)
def test_what_is_made_has_another_name(name, target):
    assert refusal(name, b"[").hint.endswith(
        f"jq -c '.[]' < {name!r} > {target}".replace(f"{name!r}", quoted(name))
    )


def quoted(name):
    return f"'{name}'" if " " in name else name


def made(tmp_path, name, content):
    """Run the command of a hint; return its output as rows."""
    (tmp_path / name).write_bytes(content)
    hint = refusal(name, content).hint
    command, _, target = hint.removeprefix("make JSON Lines of it: ").rpartition(" > ")
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, check=True)
    assert target
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("delimiter", "name"), [(",", "a.csv"), (";", "b"), ("\t", "c.tsv")])
def test_the_command_for_csv_makes_rows(tmp_path, delimiter, name):
    written = io.StringIO()
    writer = csv.writer(written, delimiter=delimiter)
    writer.writerows([["id", "prompt"], ["1", 'two\nlines, "quoted"'], ["2", "é"]])
    rows = made(tmp_path, name, written.getvalue().encode("utf-8-sig"))
    assert rows == [{"id": "1", "prompt": 'two\nlines, "quoted"'}, {"id": "2", "prompt": "é"}]


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
@pytest.mark.parametrize(
    ("content", "rows"),
    [
        (b'[{"prompt": "a"}, {"prompt": "b"}]', [{"prompt": "a"}, {"prompt": "b"}]),
        (b'{\n"prompt": "a"}\n{\n"prompt": "b"}', [{"prompt": "a"}, {"prompt": "b"}]),
        (b'"a"\n"b"\n', [{"prompt": "a"}, {"prompt": "b"}]),
        (b'say "a"\n\nb b', [{"prompt": 'say "a"'}, {"prompt": "b b"}]),
    ],
)
def test_the_command_for_json_and_text_makes_rows(tmp_path, content, rows):
    assert made(tmp_path, "given", content) == rows


@pytest.mark.skipif(shutil.which("iconv") is None, reason="needs iconv")
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_the_command_for_other_encodings_makes_rows(tmp_path, encoding):
    assert made(tmp_path, "given", '{"prompt": "é"}\n'.encode(encoding)) == [{"prompt": "é"}]
