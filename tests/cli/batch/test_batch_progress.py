"""Tests a batch's progress on a screen of any width and in a log, and of the reasons for failed rows."""

import re
from contextlib import suppress
from dataclasses import replace

import pytest
from cli_process import run_in_terminal

from metal_gen.batch.input.rows import RowError, RowForm
from metal_gen.batch.runner import BatchCounts
from metal_gen.cli.batch import progress as progress_module
from metal_gen.cli.batch.progress import FIRST_LOG_S, LOG_INTERVAL_S, BatchProgress, duration, fit
from metal_gen.cli.batch.report import MOST_SHOWN, BatchReporter
from metal_gen.cli.terminal.console import Console


class Clock:
    """A clock that the test advances, in seconds."""

    def __init__(self):
        self.now_s = 1000.0

    def perf_counter(self):
        return self.now_s


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


@pytest.fixture
def log(capsys):
    """Return the lines on standard error."""
    return lambda: capsys.readouterr().err.splitlines()


def counted(done, failed=0, **others):
    return BatchCounts(done=done, failed=failed, completion_tokens=done * 10, **others)


def error(number, hint=""):
    reason = f"reason {chr(96 + number)}"
    return RowError(number, number, f"int:{number}", RowForm.NATIVE, reason, {}, hint=hint)


# Progress


@pytest.mark.quick
def test_a_file_has_a_total_a_percentage_and_a_time_left(clock):
    progress = BatchProgress(Console(), lambda: 60)
    clock.now_s += FIRST_LOG_S
    progress.update(counted(20))
    assert progress.parts(counted(20))[:3] == ["20/60 rows", "33 %", "2:00 left"]
    assert progress.parts(counted(19, 1))[2:4] == ["2:00 left", "1 failed"]
    assert progress.parts(counted(0))[:2] == ["0/60 rows", "0 %"]
    assert progress.parts(counted(60))[:3] == ["60/60 rows", "100 %", "0:00 left"]


@pytest.mark.quick
def test_rows_done_before_count_but_not_for_the_speed(clock):
    progress = BatchProgress(Console(), lambda: 100, finished=80)
    clock.now_s += FIRST_LOG_S
    progress.update(counted(10))
    assert progress.parts(counted(10, skipped=80))[:3] == ["90/100 rows", "90 %", "1:00 left"]


@pytest.mark.quick
def test_an_input_that_grows_is_never_more_than_done(clock):
    progress = BatchProgress(Console(), lambda: 10)
    clock.now_s += FIRST_LOG_S
    progress.update(counted(12))
    assert progress.parts(counted(12))[:2] == ["12/12 rows", "100 %"]


@pytest.mark.quick
@pytest.mark.parametrize("total", [None, 0])
def test_a_pipe_has_no_total(clock, total):
    progress = BatchProgress(Console(), lambda: total)
    clock.now_s += FIRST_LOG_S
    progress.update(counted(12, 1))
    assert progress.parts(counted(12, 1))[:2] == ["13 rows", "1 failed"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("width", "line"), [(80, "aa  bb  cc"), (9, "aa  bb"), (6, "aa  bb"), (5, "aa"), (1, "a")]
)
def test_a_line_has_what_fits(width, line):
    assert fit(["aa", "bb", "cc"], width) == line


@pytest.mark.quick
@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said


@pytest.mark.quick
def test_a_log_gets_a_line_now_and_then(clock, log):
    asked = []
    progress = BatchProgress(Console(), lambda: asked.append(1) or 600)
    for _ in range(3600):
        clock.now_s += 1
        progress.update(counted(1 + int(clock.now_s - 1000) // 10))
    lines = log()
    assert len(lines) == 1 + (3600 - FIRST_LOG_S) // LOG_INTERVAL_S
    assert lines[0].startswith("metal-gen: 7/600 rows; 1 %; 1:24:43 left; ")
    assert asked == [1]


@pytest.mark.quick
def test_quiet_runs_count_and_print_nothing(clock, log):
    progress = BatchProgress(Console(quiet=True), lambda: pytest.fail("it was counted"))
    clock.now_s += 10_000
    progress.update(counted(1))
    assert log() == []


@pytest.mark.parametrize("columns", [pytest.param(40, marks=pytest.mark.release), 80])
def test_a_screen_has_a_line_that_fits(tmp_path, columns):
    rows = '{"prompt": "Tell me a story.", "max_tokens": 24}\n' * 12
    (tmp_path / "in.jsonl").write_text('{"prompt": ""}\n' + rows)
    arguments = ("batch", "in.jsonl", "-o", "out.jsonl", "--batch-size", "1")
    outcome = run_in_terminal(*arguments, home=tmp_path, attached=("stderr",), columns=columns)
    assert outcome.code == 7
    colorless = re.sub(r"\x1b\[[0-9;]*m", "", outcome.screen.decode())
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\r", colorless)
    lines = [line.strip() for line in re.split(r"[\r\n]", text) if re.search(r"\d/13 rows", line)]
    assert all(len(line) <= columns for line in lines)
    assert any(re.search(r"\d+/13 rows  \d+ %  \d:\d\d left  1 failed", line) for line in lines)
    assert any("━" in line for line in lines) is (columns == 80)
    assert "metal-gen: line 1: the prompt is empty\n" in text.replace("\r", "")


# Failed rows


def report(log, failures, output="out.jsonl"):
    console = Console()
    with BatchReporter(console, BatchProgress(console, lambda: None), output) as reporter:
        for number in range(1, failures + 1):
            reporter.failure(error(number, "raise it" if number == 2 else ""))
        reporter.finish(counted(1, failures), seed=3)
    return log()


@pytest.mark.quick
def test_the_first_reasons_are_shown_with_the_place_of_the_others(log):
    lines = report(log, 10)
    assert lines[: MOST_SHOWN + 1] == [
        "metal-gen: line 1: reason a",
        "metal-gen: line 2: reason b (raise it)",
        "metal-gen: line 3: reason c",
        "metal-gen: more rows fail, for other reasons; out.jsonl says why",
    ]
    assert "1 row done, 10 failed" in lines[-3]
    assert lines[-2].startswith("metal-gen: jq -c 'select(.error)' out.jsonl shows")
    assert lines[-1].startswith("hint: --resume --retry-failed runs them again, as they are or")


@pytest.mark.quick
def test_records_on_a_pipe_are_where_the_others_are(log):
    lines = report(log, 4, output=None)
    assert lines[MOST_SHOWN] == "metal-gen: more rows fail, for other reasons; their records say why"
    assert "1 row done, 4 failed" in lines[-1]


@pytest.mark.quick
@pytest.mark.parametrize("is_stopped", [False, True])
def test_a_reason_of_many_rows_is_shown_once_and_counted_at_the_end(log, is_stopped):
    console = Console()
    with suppress(KeyboardInterrupt), BatchReporter(console, BatchProgress(console, int), None) as reporter:
        reporter.update(counted(0, 200))
        for number in range(1, 201):
            reporter.failure(replace(error(1), number=number))
        if is_stopped:
            raise KeyboardInterrupt
        reporter.finish(counted(0, 200), None)
    shown, alike, counts = log()
    assert shown == "metal-gen: line 1: reason a"
    assert alike == "metal-gen: 199 more rows failed like line 1: lines 2, 3, 4, ..."
    assert "200 failed" in counts


@pytest.mark.quick
def test_without_failures_nothing_is_printed_about_them(log):
    assert len(report(log, 0)) == 1


@pytest.mark.quick
@pytest.mark.parametrize(("output", "advice"), [("out.jsonl", "; continue with --resume"), (None, "tok/s")])
def test_a_stopped_run_says_how_to_continue(log, output, advice):
    console = Console()
    with suppress(KeyboardInterrupt), BatchReporter(console, BatchProgress(console, int), output) as reporter:
        reporter.update(counted(4))
        raise KeyboardInterrupt
    (line,) = log()
    assert line.startswith("metal-gen: stopped: 4 rows done, 0 failed; 40 tokens, ")
    assert line.endswith(advice)


@pytest.mark.quick
def test_a_run_that_is_stopped_before_its_first_record_has_nothing_to_continue(log):
    console = Console()
    with (
        suppress(KeyboardInterrupt),
        BatchReporter(console, BatchProgress(console, int), "out.jsonl") as reporter,
    ):
        reporter.update(counted(0))
        raise KeyboardInterrupt
    assert log() == ["metal-gen: stopped: 0 rows done, 0 failed"]
