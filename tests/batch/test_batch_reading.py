"""Lines are read whole or passed over, in memory that neither their number nor their length has a part in."""

import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.batch.input.reading import LONGEST_LINE, TooLong, read_lines, read_rows
from metal_gen.batch.input.rows import RowForm
from metal_gen.batch.output.index import IdIndex
from metal_gen.errors import MetalGenError


class Failing(io.RawIOBase):
    """Gives some bytes, and then fails."""

    def __init__(self, content, error):
        self.content, self.error = content, error

    def readable(self):
        return True

    def readinto(self, buffer):
        if not self.content:
            raise self.error
        part, self.content = self.content[: len(buffer)], self.content[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


class Endless(io.RawIOBase):
    """So many bytes, none of which is held."""

    def __init__(self, nbytes, end):
        self.left, self.end = nbytes, end

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(len(buffer), self.left)
        buffer[:count] = b"x" * count
        self.left -= count
        if not count:
            count, self.end = len(self.end), b""
            buffer[:count] = b"\n{}\n"[:count]
        return count


def lines(content, **options):
    return list(read_lines(io.BytesIO(content), **options))


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.booleans())
def test_every_line_that_is_not_blank_comes_with_its_number(parts, ends):
    content = b"\n".join(parts) + (b"\n" if ends else b"")
    expected = [(n, p.removesuffix(b"\r")) for n, p in enumerate(parts, 1) if p.strip()]
    assert lines(content) == expected


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_last_line_may_end_in_any_way(end):
    assert lines(b"a\r\n\r\n \t\nb" + end) == [(1, b"a"), (4, b"b")]


@pytest.mark.parametrize("end", [b"", b"\n", b"\nccc", b"\nccc\n"])
def test_the_longest_line_is_read_and_a_longer_one_passed_over(end):
    after = [(2, b"ccc")] if b"c" in end else []
    assert lines(b"a" * 10 + end, longest=10) == [(1, b"a" * 10), *after]
    assert lines(b"a" * 11 + end, longest=10) == [(1, TooLong(11)), *after]
    assert lines(b"a" * 200_000 + end, longest=10) == [(1, TooLong(200_000)), *after]


def test_a_line_of_any_length_takes_no_more_memory():
    stream = io.BufferedReader(Endless(2**26, b"\n{}\n"), 2**16)
    tracemalloc.start()
    found = list(read_lines(stream, longest=2**16))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [(1, TooLong(2**26)), (2, b"{}")]
    assert peak_bytes < 2**20


def test_a_stream_that_fails_gives_first_what_came():
    stream = io.BufferedReader(Failing(b"a\nb\nhalf", OSError(5, "Input/output error")), 8)
    came = []
    with pytest.raises(MetalGenError, match="after line 2: Input/output error"):
        came.extend(read_lines(stream))
    with pytest.raises(MetalGenError, match="after line 2: it ended early"):
        list(read_lines(io.BufferedReader(Failing(b"a\nb\nhalf", EOFError("it ended early")), 8)))


def test_rows_and_lines_that_are_too_long():
    content = b'{"prompt": "a"}\n\n' + b"x" * (LONGEST_LINE + 1) + b'\n{"prompt": "b"}'
    first, bad, last = read_rows(io.BytesIO(content))
    assert (first.prompt, first.id, last.prompt, last.id) == ("a", 1, "b", 4)
    assert (bad.number, bad.key) == (3, "line:3")
    assert f"{LONGEST_LINE + 1:,} bytes" in bad.reason


def test_a_line_that_cannot_be_read_has_the_form_of_the_one_before():
    chat = b'{"custom_id": "a", "url": "/v1/chat/completions", "body": {}}\n'
    forms = [
        row.form for row in read_rows(io.BytesIO(b"{\n" + chat + b"{\n" + b'{"prompt": "a"}\n' + b"{\n"))
    ]
    assert forms == [RowForm.NATIVE, RowForm.CHAT, RowForm.CHAT, RowForm.NATIVE, RowForm.NATIVE]


def test_the_field_is_handed_on():
    (row,) = read_rows(io.BytesIO(b'{"q": "hi", "n": "x"}'), field="q")
    assert (row.prompt, row.carried) == ("hi", {"n": "x"})


# The index


@given(st.lists(st.text(max_size=3)))
def test_the_index_is_a_set(keys):
    seen = set()
    with IdIndex() as index:
        for key in keys:
            assert (key in index) == (key in seen)
            assert index.add(key) == (key not in seen)
            seen.add(key)
            assert len(index) == len(seen)


def test_keys_that_a_database_might_take_for_the_same():
    keys = ["a", "A", "a ", "a\0", "a\0b", "é", "e\u0301", "\ud800", "1", "01", ""]
    with IdIndex() as index:
        assert all(index.add(key) for key in keys)
        assert not any(index.add(key) for key in keys)
        assert 1 not in index


def test_the_index_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("SQLITE_TMPDIR", str(tmp_path))
    with IdIndex() as index:
        for number in range(1000):
            index.add(f"int:{number}")
        assert list(tmp_path.iterdir()) == []
