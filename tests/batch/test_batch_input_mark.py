"""Tests input marks: an input may grow, and other changes are located."""

import gzip
import io
import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from output_records import BAD, GOOD, RUN, joined, write

from metal_gen.batch.input.reading import read_rows
from metal_gen.batch.input.stream import InputStream
from metal_gen.batch.output import input_mark
from metal_gen.batch.output.input_mark import mark_from, mark_input, what_changed
from metal_gen.batch.output.journal import Journal
from metal_gen.errors import MetalGenError, UsageError

ROWS = [b'{"id": %d, "prompt": "a"}' % number for number in range(7)]
OTHER = b'{"id": 9, "prompt": "b"}'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "in.jsonl"


def stream(path):
    return InputStream(io.FileIO(path), str(path))


def put(path, rows, end=b"\n"):
    path.write_bytes(b"\n".join(rows) + end)


@pytest.mark.parametrize("end", [b"\n", b""], ids=["newline", "no newline"])
@pytest.mark.parametrize("added", [[], [OTHER], [b"", b"not json"], [OTHER] * 20])
def test_an_input_may_grow(path, end, added):
    put(path, ROWS, end)
    begun = mark_input(stream(path))
    put(path, [*ROWS, *added])
    assert what_changed(stream(path), begun) is None


def test_a_last_line_that_grows_has_changed(path):
    put(path, ROWS, b"")
    begun = mark_input(stream(path))
    path.write_bytes(path.read_bytes() + OTHER + b"\n")
    assert what_changed(stream(path), begun) == "line 7 differs"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([*ROWS[:2], OTHER, *ROWS[3:]], "line 3 differs"),
        ([OTHER, *ROWS[1:6], OTHER], "lines 1 and 7 differ"),
        ([OTHER, ROWS[1], OTHER, OTHER, ROWS[4], OTHER, ROWS[6]], "lines 1, 3 to 4 and 6 differ"),
        ([ROWS[1], ROWS[0], *ROWS[2:]], "lines 1 to 2 differ"),
        ([OTHER, *ROWS], "lines 1 to 7 differ"),
        (ROWS[:4], "it had 7 lines and now has 4"),
        ([ROWS[0], OTHER], "line 2 differs; it had 7 lines and now has 2"),
        ([], "line 1 differs; it had 7 lines and now has 1"),
    ],
)
def test_which_lines_differ(path, rows, said):
    put(path, ROWS)
    begun = mark_input(stream(path))
    put(path, rows)
    assert what_changed(stream(path), begun) == said


def test_many_changes_are_not_all_listed(path):
    put(path, [b"x"] * 40)
    begun = mark_input(stream(path))
    put(path, [b"x", b"y"] * 20)
    assert what_changed(stream(path), begun) == "lines 2, 4, 6, 8, 10 and 15 more differ"


@given(st.integers(1, 100), st.data())
def test_in_many_lines_a_change_is_located_to_a_group(tmp_path_factory, count, data):
    path = tmp_path_factory.getbasetemp() / "many.jsonl"
    rows = [b"%d" % number for number in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(input_mark, "MOST_GROUPS", 8)
        put(path, rows)
        begun = mark_input(stream(path))
        assert len(begun.groups) <= 8
        assert mark_from(json.loads(json.dumps(begun.document))) == begun
        grown = [*rows, *[b"new"] * data.draw(st.integers(0, 50))]
        put(path, grown)
        assert what_changed(stream(path), begun) is None
        place = data.draw(st.integers(0, count - 1))
        put(path, [*grown[:place], OTHER, *grown[place + 1 :]])
        said = [int(number) for number in re.findall(r"\d+", what_changed(stream(path), begun))]
    assert said[0] <= place + 1 <= said[-1]
    assert said[-1] - said[0] < begun.group_lines


def test_a_long_line_is_read_in_pieces(path, monkeypatch):
    put(path, [b"x" * 100, b"y" * 100])
    begun = mark_input(stream(path))
    monkeypatch.setattr(input_mark, "PIECE_BYTES", 7)
    assert mark_input(stream(path)) == begun
    put(path, [b"x" * 100, b"y" * 99])
    assert what_changed(stream(path), begun) == "line 2 differs"


def test_compressed_inputs_are_compared_by_lines(path):
    path.write_bytes(gzip.compress(b"\n".join(ROWS)))
    begun = mark_input(stream(path))
    path.write_bytes(gzip.compress(b"\n".join(ROWS), 1) + gzip.compress(b"\n" + OTHER))
    assert what_changed(stream(path), begun) is None
    path.write_bytes(gzip.compress(b"\n".join([OTHER, *ROWS[1:]])))
    assert what_changed(stream(path), begun) == "line 1 differs"


def test_an_input_that_cannot_be_read(path):
    path.write_bytes(gzip.compress(b"\n".join(ROWS))[:-20])
    with pytest.raises(UsageError, match=r"the input .*in\.jsonl cannot be read: "):
        mark_input(stream(path))


# With an output


def test_an_output_resumes_with_an_input_that_grows_repeatedly(path):
    output = path.with_name("out.jsonl")
    for count in range(1, 4):
        put(path, ROWS[:count])
        with Journal.resume(output, RUN, input=stream(path)) as journal:
            assert journal.found.done == count - 1
            journal.append(GOOD[count])
    put(path, [*ROWS[:1], OTHER, *ROWS[2:]])
    with pytest.raises(UsageError, match=r"has changed since .*: line 2 differs") as raised:
        Journal.resume(output, RUN, input=stream(path))
    assert "--overwrite" in raised.value.hint


@pytest.mark.parametrize(("then", "now"), [("a pipe", "a file"), ("a file", "a pipe")])
def test_a_pipe_is_not_a_file(path, then, now):
    put(path, ROWS)
    output = path.with_name("out.jsonl")
    with Journal.create(output, RUN, input=stream(path) if then == "a file" else None) as journal:
        journal.append(GOOD[0])
    with pytest.raises(UsageError, match=f"rows from {then}, but this run has {now}"):
        Journal.resume(output, RUN, input=stream(path) if now == "a file" else None)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([OTHER, *ROWS[1:]], "line 1 differs"),
        (ROWS[:3], "it had 7 lines and now has 3"),
        ([*ROWS, OTHER], None),
        (ROWS, None),
    ],
)
def test_an_input_that_is_written_while_it_is_read(path, rows, said):
    put(path, ROWS)
    input = stream(path)
    os.utime(path, (1, 1))
    with Journal.create(path.with_name("out.jsonl"), RUN, input=input) as journal:
        journal.require_same_input()
        put(path, rows)
        if said is None:
            journal.require_same_input()
        else:
            with pytest.raises(MetalGenError, match=f"was changed by another process during the run: {said}"):
                journal.require_same_input()
        journal.append(GOOD[0])


def test_an_input_that_is_cut_while_it_is_read_gives_no_half_row(path, monkeypatch):
    monkeypatch.setattr("metal_gen.batch.input.stream.CHUNK_BYTES", 30)
    put(path, ROWS)
    rows = read_rows(stream(path))
    assert next(rows).id == 0
    os.truncate(path, 60)
    rest = []
    with pytest.raises(MetalGenError, match=r"cannot be read after line \d: it has become shorter"):
        rest.extend(row.id for row in rows if row is not None)
    assert rest in ([], [1])


# Rows that failed, and are corrected

FAILED = [{"id": 2, "error": {"code": "does_not_fit", "line": 3, "message": "x"}}, BAD]
BEGUN = [*ROWS, *ROWS[:2], b"not json"]
CORRECTED = [*ROWS[:2], OTHER, *BEGUN[3:9], b'{"id": 10, "prompt": "c"}']


@pytest.fixture
def failed(path, tmp_path):
    """Return an output in which the rows of lines 3 and 10 have failed."""
    put(path, BEGUN)
    output = tmp_path / "out.jsonl"
    write(output, [*GOOD[:2], *FAILED], input=stream(path))
    return output


def resume(output, path, **options):
    with Journal.resume(output, RUN, input=stream(path), **options) as journal:
        return journal.found


def test_rows_that_failed_may_be_corrected_and_are_run_again(failed, path):
    put(path, CORRECTED)
    found = resume(failed, path, retry_failed=True)
    assert (found.done, found.retried, found.failed) == (2, 2, 0)
    assert failed.read_bytes() == joined(GOOD[:2])
    # From now on the corrected rows belong to the run.
    assert resume(failed, path).done == 2
    put(path, BEGUN)
    with pytest.raises(UsageError, match="lines 3 and 10 differ"):
        resume(failed, path, retry_failed=True)


def test_corrected_rows_have_to_be_retried(failed, path):
    put(path, CORRECTED)
    with pytest.raises(UsageError, match="lines 3 and 10 differ") as refused:
        resume(failed, path)
    assert "--retry-failed" in refused.value.hint
    assert failed.read_bytes() == joined([*GOOD[:2], *FAILED])


@pytest.mark.parametrize(
    "rows",
    [[OTHER, *CORRECTED[1:]], [*CORRECTED[:5], *CORRECTED[6:]], CORRECTED[:9]],
    ids=["other", "gone", "short"],
)
def test_a_row_that_did_not_fail_may_not_change(failed, path, rows):
    put(path, rows)
    with pytest.raises(UsageError, match="has changed since") as refused:
        resume(failed, path, retry_failed=True)
    assert "--retry-failed" not in refused.value.hint
    assert failed.read_bytes() == joined([*GOOD[:2], *FAILED])


def test_lines_that_have_one_digest_cannot_be_told_apart(failed, path, monkeypatch):
    monkeypatch.setattr(input_mark, "MOST_GROUPS", 8)
    write(failed, [*GOOD[:2], *FAILED], input=stream(path), overwrite=True)
    put(path, [*BEGUN[:9], b'{"id": 10}'])
    with pytest.raises(UsageError, match="within lines 9 to 10"):
        resume(failed, path, retry_failed=True)
    put(path, BEGUN)
    assert resume(failed, path, retry_failed=True).retried == 2


@given(lines=st.sets(st.integers(1, 10)), may_differ=st.sets(st.integers(1, 10)))
def test_what_may_differ_is_left_out(tmp_path_factory, lines, may_differ):
    path = tmp_path_factory.getbasetemp() / "may_differ.jsonl"
    put(path, [b"{}"] * 10)
    begun = mark_input(stream(path))
    put(path, [b"[]" if number in lines else b"{}" for number in range(1, 11)])
    assert (what_changed(stream(path), begun, may_differ=may_differ) is None) == (lines <= may_differ)
