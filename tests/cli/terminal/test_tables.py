"""Tests that tables are aligned if they fit, and nothing is cut off if they do not."""

import pytest

from metal_gen.cli.terminal.tables import UNBOUNDED, Column, pairs_table, rows_table, shown, to_plain

COLUMNS = (Column("name"), Column("size", is_figure=True), Column("state"))
ROWS = (("a-rather-long-name-of-something", "1", ""), ("b", "20,000", "ready"))


@pytest.mark.parametrize("width", [60, 200, UNBOUNDED])
def test_rows_that_fit_stand_side_by_side(width):
    assert to_plain(rows_table(COLUMNS, ROWS, width), width).splitlines() == [
        "name                               size  state",
        "a-rather-long-name-of-something       1",
        "b                                20,000  ready",
    ]


def test_a_name_goes_over_several_lines_first():
    assert to_plain(rows_table(COLUMNS, ROWS, 40), 40).splitlines() == [
        "name                         size  state",
        "a-rather-long-name-of-som       1",
        "ething",
        "b                          20,000  ready",
    ]


def test_rows_become_lists_where_they_do_not_fit():
    assert to_plain(rows_table(COLUMNS, ROWS, 24), 24).splitlines() == [
        "a-rather-long-name-of-so",
        "mething",
        "  size  1",
        "b",
        "  size   20,000",
        "  state  ready",
    ]


def test_wide_characters_count_as_two():
    plain = to_plain(rows_table(COLUMNS, [("\u6a21\u578b", "1", "x"), ("abcd", "1", "x")], 60), 60)
    assert plain.splitlines()[1:] == ["\u6a21\u578b     1  x", "abcd     1  x"]


def test_pairs_leave_out_what_is_not_known():
    table = pairs_table([("one", "1"), ("two", ""), ("three", "a [b] :smile:")])
    assert to_plain(table, 40) == "one    1\nthree  a [b] :smile:\n"


def test_what_a_terminal_would_obey_is_shown():
    assert shown("a\x1b[31m\udcff") == "a\u241b[31m\\xff"
