"""Tests of the scripts that compare texts and passes with and without guesses."""

import sys

import pytest

from scripts import bench_guess_costs, bench_guesses


def rows_of(capsys, monkeypatch, script, *arguments):
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    monkeypatch.setattr(script, "BEGIN_S", script.time.perf_counter())
    script.main()
    return [line.split() for line in capsys.readouterr().out.splitlines()[1:]]


def test_texts_are_equal_and_counted(capsys, monkeypatch):
    arguments = ["--sources", "lookup,mtp", "--texts", "story", "--tokens", "12", "--runs", "1"]
    row, memory, refused = rows_of(capsys, monkeypatch, bench_guesses, *arguments)
    assert row[:2] == ["lookup", "story"]
    assert "12/12" in row
    assert memory[:2] == ["lookup", "peak"]
    assert refused[0] == "mtp"
    assert "no layers for multi-token prediction" in " ".join(refused)


def test_the_edit_is_begun_in_the_last_function_and_its_end_is_known():
    prompt = bench_guesses.TEXTS["code_edit"]
    assert prompt.endswith("def cheapest_item(items, rate):")
    assert (
        prompt.count("(items, tax_rate):") == prompt.count("(items, rate):") == len(bench_guesses.FUNCTIONS)
    )
    (stop,) = bench_guesses.STOPS["code_edit"]
    assert stop in prompt


def test_the_first_difference_is_found():
    assert bench_guesses.equal_tokens([1, 2, 3], [1, 2, 3]) == 3
    assert bench_guesses.equal_tokens([1, 2, 3], [1, 5, 3]) == 1


def test_costs_of_passes_and_rounds(capsys, monkeypatch):
    arguments = ["--shape", "tiny-hybrid", "--guesses", "0,2", "--depth", "9", "--passes", "4", "--runs", "1"]
    _, _, none, two = rows_of(capsys, monkeypatch, bench_guess_costs, *arguments)
    assert (none[:2], two[:2]) == (["0", "1"], ["2", "3"])
    assert none[5:7] == ["-", "-"]
    assert all(float(number) > 0 for number in two[:11])


def test_no_time_is_said(capsys, monkeypatch):
    arguments = ["--sources", "lookup", "--seconds", "0"]
    assert rows_of(capsys, monkeypatch, bench_guesses, *arguments) == [
        ["lookup", "not", "measured:", "the", "time", "is", "over"]
    ]


@pytest.mark.parametrize(("right", "expected"), [(0.0, 0.5), (1.0, 2.0), (0.5, 0.9375)])
def test_computed_gain(right, expected):
    assert bench_guess_costs.gain(right, 3, 2.0) == expected
