"""Tests reading lines: whole or skipped, in memory that does not depend on their number or length."""

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metal_gen.batch.input.reading import LONGEST_LINE, TooLong, read_lines, read_rows
from metal_gen.batch.input.rows import RowForm, id_key
from metal_gen.batch.output.index import IdIndex
from metal_gen.errors import MetalGenError


class Parts:
    """A source that yields parts; None has not arrived yet, and an exception is raised."""

    def __init__(self, *parts):
        self.parts = list(parts)

    def read(self):
        part = self.parts.pop(0) if self.parts else b""
        if isinstance(part, Exception):
            raise part
        return part


class Endless:
    """A source of one line of this many bytes, which are never in memory together, and another line."""

    def __init__(self, nbytes):
        self.left = nbytes

    def read(self):
        count = min(2**16, self.left)
        self.left -= count
        if count:
            return b"x" * count
        self.left, was = -1, self.left
        return b"\n{}\n" if was == 0 else b""


def lines(content, **options):
    return list(read_lines(Parts(content), **options))


@given(
    st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8),
    st.booleans(),
    st.lists(st.integers(0, 100), max_size=5),
)
def test_every_line_that_is_not_blank_comes_with_its_number_however_it_comes(written, ends, cuts):
    content = b"\n".join(written) + (b"\n" if ends else b"")
    expected = [(n, p.removesuffix(b"\r")) for n, p in enumerate(written, 1) if p.strip()]
    places = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    parts = [content[begin:end] or None for begin, end in pairwise(places)]
    found = list(read_lines(Parts(*parts)))
    assert [line for line in found if line is not None] == expected
    assert found.count(None) == parts.count(None)


def test_a_line_that_has_not_arrived_is_not_waited_for():
    found = read_lines(Parts(b"a\nb", None, b"b\n", None, b"c"))
    assert list(found) == [(1, b"a"), None, (2, b"bb"), None, (3, b"c")]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_the_last_line_may_end_in_any_way(end):
    assert lines(b"a\r\n\r\n \t\nb" + end) == [(1, b"a"), (4, b"b")]


@pytest.mark.parametrize("end", [b"", b"\n", b"\nccc", b"\nccc\n"])
def test_the_longest_line_is_read_and_a_longer_one_skipped(end):
    after = [(2, b"ccc")] if b"c" in end else []
    assert lines(b"a" * 10 + end, longest=10) == [(1, b"a" * 10), *after]
    assert lines(b"a" * 11 + end, longest=10) == [(1, TooLong(11, b"a" * 10)), *after]
    assert lines(b"a" * 200_000 + end, longest=10) == [(1, TooLong(200_000, b"a" * 10)), *after]


def test_a_line_of_any_length_takes_no_more_memory():
    tracemalloc.start()
    found = list(read_lines(Endless(2**26), longest=2**16))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == [(1, TooLong(2**26, b"x" * 2**16)), (2, b"{}")]
    assert peak_bytes < 2**20


def test_a_stream_that_fails_gives_first_what_came():
    came = read_lines(Parts(b"a\nb\nhalf", OSError(5, "Input/output error")))
    assert [next(came), next(came)] == [(1, b"a"), (2, b"b")]
    with pytest.raises(MetalGenError, match="after line 2: Input/output error"):
        next(came)


def test_rows_and_lines_that_are_too_long():
    content = b'{"prompt": "a"}\n\n' + b"x" * (LONGEST_LINE + 1) + b'\n{"prompt": "b"}'
    first, bad, last = read_rows(Parts(content))
    assert (first.prompt, first.id, last.prompt, last.id) == ("a", 1, "b", 4)
    assert (bad.number, bad.key) == (3, "line:3")
    assert f"{LONGEST_LINE + 1:,} bytes" in bad.reason


@pytest.mark.parametrize(
    ("begins", "id", "form"),
    [
        (b'{"id": "a", "prompt": "', "a", RowForm.NATIVE),
        (b'\xef\xbb\xbf {"meta": {"id": 1}, "id" : 7 , "prompt": "', 7, RowForm.NATIVE),
        (b'{"custom_id": "c", "url": "/v1/completions", "body": {"prompt": "', "c", RowForm.COMPLETIONS),
        (b'{"prompt": "', None, RowForm.NATIVE),
        (b'{"id": true, "prompt": "', None, RowForm.NATIVE),
        (b'["id", "', None, RowForm.NATIVE),
    ],
)
def test_a_line_that_is_too_long_is_known_by_an_id_at_its_beginning(begins, id, form):
    (bad,) = read_rows(Parts(begins + b"x" * LONGEST_LINE + b'"}'))
    assert (bad.number, bad.id, bad.form) == (1, id, form)
    assert bad.key == ("line:1" if id is None else id_key(id))


def test_an_id_that_is_cut_off_is_none():
    (bad,) = read_rows(Parts(b'{"prompt": "' + b"x" * (LONGEST_LINE - 25) + b'", "id": 123456789}'))
    assert bad.id is None


def test_a_line_that_cannot_be_read_has_the_form_of_the_one_before():
    chat = b'{"custom_id": "a", "url": "/v1/chat/completions", "body": {}}\n'
    forms = [row.form for row in read_rows(Parts(b"{\n" + chat + b"{\n" + b'{"prompt": "a"}\n' + b"{\n"))]
    assert forms == [RowForm.NATIVE, RowForm.CHAT, RowForm.CHAT, RowForm.NATIVE, RowForm.NATIVE]


def test_the_field_is_handed_on():
    (row,) = read_rows(Parts(b'{"q": "hi", "n": "x"}'), field="q")
    assert (row.prompt, row.carried) == ("hi", {"n": "x"})
    (row,) = read_rows(Parts(b'{"prompt": "hi", "note": "x"}'), keep_fields=True)
    assert (row.prompt, row.carried) == ("hi", {"note": "x"})


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
