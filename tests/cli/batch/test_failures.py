"""Tests how failed rows are gathered by reason, whatever their number."""

import pytest

from metal_gen.batch.input.rows import RowError, RowErrorCode, RowForm
from metal_gen.cli.batch.failures import MOST_LINES, MOST_REASONS, FailedRows

pytestmark = pytest.mark.quick


def failed(number, reason, code=RowErrorCode.INVALID_REQUEST, hint=""):
    return RowError(number, number, f"int:{number}", RowForm.NATIVE, reason, {}, code, hint)


def lines(*reasons):
    rows = FailedRows()
    for number, reason in enumerate(reasons, 1):
        rows.add(failed(number, reason))
    return rows.lines()


def test_rows_with_one_reason_are_one_line_with_their_number_and_the_first_of_them():
    assert lines(*["there is no prompt"] * 200) == [
        "line 1: there is no prompt; 199 more rows like it: lines 2, 3, 4, ..."
    ]
    assert lines("a", "b", "a") == ["line 1: a; 1 more row like it: line 3", "line 2: b"]
    assert lines(*["a"] * (MOST_LINES + 1)) == ["line 1: a; 3 more rows like it: lines 2, 3, 4"]


@pytest.mark.parametrize(
    ("one", "other", "are_alike"),
    [
        ("temperature must be at most 2, not 2.5", "temperature must be at most 2, not -31", True),
        ("the prompt of 18,050 characters is too long", "the prompt of 7 characters is too long", True),
        ('there is no parameter "t1"', 'there is no parameter "t2"', False),
        ("temperature is too high", "top_p is too high", False),
    ],
)
def test_reasons_are_alike_if_only_numbers_differ(one, other, are_alike):
    assert len(lines(one, other)) == (1 if are_alike else 2)


def test_rows_with_the_id_of_an_earlier_one_are_one_kind():
    rows = FailedRows()
    for number in range(1, 4):
        rows.add(failed(number, f'an earlier row has the same id "r{number}"', RowErrorCode.DUPLICATE_ID))
    assert rows.lines() == ['line 1: an earlier row has the same id "r1"; 2 more rows like it: lines 2, 3']


def test_another_hint_is_another_kind():
    rows = FailedRows()
    assert rows.add(failed(1, "no prompt", hint="--field a"))
    assert rows.add(failed(2, "no prompt", hint="--field b"))


def test_what_is_kept_does_not_grow_with_the_rows():
    rows = FailedRows()
    for number in range(10_000):
        rows.add(failed(number, f'"{number}"'))
        rows.add(failed(number, '"0"'))
    assert len(rows.groups) == MOST_REASONS
    assert max(len(alike.next_numbers) for alike in rows.groups) == MOST_LINES
    assert rows.others == 10_000 - MOST_REASONS
    assert rows.lines()[-1] == f"{rows.others:,} rows fail for other reasons; -v shows every row"
