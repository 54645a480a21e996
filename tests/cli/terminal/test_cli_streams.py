"""Tests the streams of the process: prompts, text, messages, signals and exit codes."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path

import pytest
from cli_process import run_cli, run_in_terminal, start_cli
from tiny_text_checkpoint import CYCLE, SAID_LINE, SHOWN, write_text_checkpoint

import metal_gen
from metal_gen.cli.input.prompt_source import read_prompt
from metal_gen.cli.terminal.console import Console

pytest_plugins = ("fixtures_text", "fixtures_cli")

ESCAPE = b"\x1b"
NO_PROMPT = 'metal-gen: there is no prompt\nhint: give one, as in metal-gen generate "...", or pipe it in\n'
# Longer than any test waits.
ENDLESS = ("--max-seq-len", "20000")


def prompt_in(outcome):
    """Return the prompt that the echo checkpoint quotes."""
    assert outcome.stdout == b""
    return json.loads(re.search(r"PROMPT (.*)", outcome.stderr)[1])


def seed_in(outcome):
    return re.search(r"seed (\d+)", outcome.stderr)[1]


def is_babble(text):
    """Return whether a text is part of the repeated text, with the end of its line."""
    text = text.removesuffix(b"\n")
    return text == bytes(islice(cycle(CYCLE), len(text)))


# The text


def test_a_pipe_gets_the_text_byte_for_byte_and_nothing_else(speaker, tmp_path):
    outcome = run_cli("generate", "--model", speaker, "-p", "hi", home=tmp_path)
    assert (outcome.code, outcome.stdout) == (0, SAID_LINE)
    assert re.fullmatch(r"metal-gen: seed \d+, \w+\n", outcome.stderr)


def test_invalid_bytes_are_written_as_in_the_library(gambler, tmp_path):
    model = metal_gen.load(gambler, raw=True, seed=5, temperature=1.0, max_tokens=60)
    text = metal_gen.generate(model, "hi").text
    assert "\ufffd" in text
    arguments = ("--raw", "--seed", "5", "--temperature", "1", "-n", "60")
    outcome = run_cli("generate", "--model", gambler, "-p", "hi", *arguments, home=tmp_path)
    assert (outcome.code, outcome.stdout) == (0, f"{text}\n".encode())


@pytest.mark.quick
@pytest.mark.release
@pytest.mark.skipif(shutil.which("g++") is None, reason="MLX compiles for a CPU through g++")
def test_a_compiled_step_says_the_same_and_is_counted(speaker, tmp_path):
    outcome = run_cli("generate", "--model", speaker, "-p", "hi", "--compile", "on", "-vv", home=tmp_path)
    assert outcome.stdout == run_cli("generate", "--model", speaker, "-p", "hi", home=tmp_path).stdout
    assert "decode step: compiled" in outcome.stderr
    assert re.search(r"compiled 1 steps? in \d", outcome.stderr)


@pytest.mark.quick
def test_verbose_says_more_and_leaves_stdout_alone(run_here, speaker):
    outcome = run_here("generate", "--model", speaker, "-p", "hi", "-vv")
    assert (outcome.code, outcome.stdout) == (0, SAID_LINE)
    assert f'model = "{speaker}" (--model)' in outcome.stderr
    assert all(line.startswith("metal-gen: ") for line in outcome.stderr.splitlines())


@pytest.mark.quick
def test_quiet_is_silent(run_here, speaker):
    outcome = run_here("generate", "--model", speaker, "-p", "hi", "-q")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, SAID_LINE, "")


def test_thinking_goes_to_stderr_with_its_control_characters_visible(thinker, tmp_path):
    outcome = run_cli("generate", "--model", thinker, "-p", "hi", home=tmp_path)
    assert (outcome.code, outcome.stdout) == (0, b"42\n")
    assert outcome.stderr.startswith("Thinking...\nhm \u241b.\n...done thinking.\nmetal-gen: seed ")


@pytest.mark.quick
def test_quiet_leaves_the_thinking_out(run_here, thinker):
    outcome = run_here("generate", "--model", thinker, "-p", "hi", "-q")
    assert (outcome.code, outcome.stdout, outcome.stderr) == (0, b"42\n", "")


def test_the_printed_seed_gives_the_text_again(run_here, gambler):
    arguments = ("generate", "--model", gambler, "-p", "hi", "--temperature", "1", "-n", "40")
    first = run_here(*arguments)
    again = run_here(*arguments, "--seed", seed_in(first))
    assert first.code == again.code == 0
    assert first.stdout
    assert again.stdout == first.stdout
    assert seed_in(again) == seed_in(first)


def test_a_seed_repeats_and_another_does_not(run_here, gambler):
    arguments = ("generate", "--model", gambler, "-p", "hi", "--temperature", "1", "-n", "40")
    texts = [run_here(*arguments, "--seed", seed).stdout for seed in ("3", "3", "4")]
    assert texts[0] == texts[1] != texts[2]


def test_the_bundled_model_runs_and_says_what_it_is(tmp_path):
    outcome = run_cli("generate", "-p", "Once upon a time", "-n", "8", home=tmp_path)
    assert outcome.code == 0
    assert outcome.stdout
    assert outcome.stderr.startswith("metal-gen: no --model given: ")


@pytest.mark.parametrize("place", [None, "/dev/null"])
def test_there_need_be_no_home_that_can_be_written(speaker, tmp_path, place):
    nowhere = {"HOME": place, "XDG_CONFIG_HOME": None, "HF_HOME": None}
    outcome = run_cli("generate", "--model", speaker, "-p", "hi", home=tmp_path, **nowhere)
    assert (outcome.code, outcome.stdout) == (0, SAID_LINE)


# The prompt


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "stdin", "prompt"),
    [
        pytest.param(("-p", "hi"), None, "hi", id="flag"),
        pytest.param((), b"two\n\n", "two\n", id="one-newline-taken-off"),
        pytest.param(("-p", "-"), b"piped\n", "piped", id="dash"),
        pytest.param(("-p", "why?"), b"text\n", "text\nwhy?", id="pipe-then-flag"),
        pytest.param(("-p", "hi"), b"", "hi", id="empty-pipe-and-flag"),
        pytest.param(("-p", ""), b"piped", "piped", id="pipe-and-empty-flag"),
        pytest.param(("-p", r"a\nb\x41"), None, r"a\nb\x41", id="escapes-stay"),
        pytest.param(("-p", " a\tb\r\n\n"), None, " a\tb\r\n\n", id="white-space-stays"),
        pytest.param((), "\ufeffhi\r\n".encode(), "hi", id="no-byte-order-mark-nor-line-end"),
    ],
)
def test_where_the_prompt_comes_from(run_here, pipe_in, echo, arguments, stdin, prompt):
    if stdin is not None:
        pipe_in(stdin)
    outcome = run_here("generate", "--model", echo, *arguments)
    assert (outcome.code, prompt_in(outcome)) == (5, prompt)


@pytest.mark.parametrize(
    ("arguments", "prompt"),
    [
        pytest.param((), "piped", id="pipe"),
        pytest.param(("-p", "why?"), "text\nwhy?", id="pipe-then-flag"),
        pytest.param((), "zażółć \ufeff\0 😀", id="any-character"),
    ],
)
def test_a_prompt_comes_through_a_pipe(echo, tmp_path, arguments, prompt):
    stdin = prompt.removesuffix("\nwhy?").encode()
    outcome = run_cli("generate", "--model", echo, *arguments, home=tmp_path, stdin=stdin)
    assert (outcome.code, prompt_in(outcome)) == (5, prompt)


@pytest.mark.quick
def test_a_prompt_that_is_typed_is_asked_for(monkeypatch, capfd):
    master, slave = pty.openpty()
    os.write(master, b"typed\n\x04")
    with os.fdopen(slave, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert read_prompt(["-"], None, Console(), lambda: 0) == "typed"
    os.close(master)
    assert capfd.readouterr().err == (
        "metal-gen: reading the prompt from the terminal; Ctrl-D on a line of its own ends it\n"
    )


def test_the_prompt_can_be_a_file_on_stdin(echo, tmp_path):
    (tmp_path / "question.txt").write_text("from a file\n")
    outcome = run_cli("generate", "--model", echo, home=tmp_path, redirect="<question.txt")
    assert prompt_in(outcome) == "from a file"


def test_with_a_prompt_stdin_may_be_closed(echo, tmp_path):
    outcome = run_cli("generate", "--model", echo, "-p", "hi", home=tmp_path, redirect="<&-")
    assert prompt_in(outcome) == "hi"


def test_a_text_comes_with_stdin_closed(speaker, tmp_path):
    outcome = run_cli("generate", "--model", speaker, "-p", "hi", home=tmp_path, redirect="<&-")
    assert (outcome.code, outcome.stdout) == (0, SAID_LINE)


@pytest.mark.parametrize(
    "locale", [{"LANG": "C"}, {"LC_ALL": "C"}, {"LC_ALL": "POSIX"}, {"LANG": None}], ids=str
)
def test_text_is_utf_8_in_any_locale(echo, tmp_path, locale):
    prompt = "zażółć 😀"
    outcome = run_cli("generate", "--model", echo, "-p", prompt.encode(), home=tmp_path, **locale)
    assert prompt_in(outcome) == prompt


@pytest.mark.parametrize("changes", [{"LC_ALL": "POSIX"}, {"PYTHONIOENCODING": "ascii"}], ids=str)
def test_a_pipe_gets_utf_8_in_any_locale(speaker, tmp_path, changes):
    outcome = run_cli("generate", "--model", speaker, "-p", "hi", home=tmp_path, **changes)
    assert (outcome.code, outcome.stdout) == (0, SAID_LINE)


@pytest.mark.parametrize("redirect", ["</dev/null", "<&-"])
def test_without_a_prompt_a_log_gets_no_help(tmp_path, redirect):
    outcome = run_cli("generate", home=tmp_path, redirect=redirect)
    assert (outcome.code, outcome.stdout, outcome.stderr) == (2, b"", NO_PROMPT)


@pytest.mark.quick
def test_on_a_terminal_without_a_prompt_comes_help_and_not_a_hang(tmp_path):
    attached = ("stdin", "stdout", "stderr")
    outcome = run_in_terminal("generate", home=tmp_path, attached=attached, columns=40, TERM="dumb")
    assert outcome.code == 2
    assert b"Usage: metal-gen generate" in outcome.screen
    assert b"--repetition-penalty" in outcome.screen
    assert b"metal-gen: there is no prompt" in outcome.screen


def test_a_pipe_that_stays_open_is_explained(speaker, tmp_path):
    with start_cli(
        "generate", "--model", speaker, "-p", "hi", home=tmp_path, stdin=subprocess.PIPE
    ) as process:
        assert process.stderr.readline().startswith(b"metal-gen: waiting for standard input to end")
        stdout, _ = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (0, SAID_LINE)


# The ends of the pipe


@pytest.mark.quick
def test_a_closed_stdout_is_refused(speaker, tmp_path):
    outcome = run_cli("generate", "--model", speaker, "-p", "hi", home=tmp_path, redirect=">&-")
    assert (outcome.code, outcome.stdout) == (2, b"")
    assert outcome.stderr == "metal-gen: standard output is closed: the text has nowhere to go\n"


def test_a_closed_stderr_does_not_cost_the_text(speaker, tmp_path):
    outcome = run_cli("generate", "--model", speaker, "-p", "hi", home=tmp_path, redirect="2>&-")
    assert (outcome.code, outcome.stdout) == (0, SAID_LINE)


def read_ten_bytes_and_leave(babbler, home):
    """Behave like `metal-gen generate ... | head -c 10`."""
    with start_cli("generate", "--model", babbler, "-p", "hi", *ENDLESS, home=home) as process:
        text = process.stdout.read(10)
        process.stdout.close()
        stderr = process.stderr.read().decode()
        return text, process.wait(timeout=30), stderr


def test_a_reader_that_leaves_ends_the_work_quietly(babbler, tmp_path):
    text, code, stderr = read_ten_bytes_and_leave(babbler, tmp_path)
    assert is_babble(text)
    assert code != 0
    # The one line is about the cache, which is larger than the model was trained for.
    assert [line[:28] for line in stderr.splitlines()] == ["metal-gen: max_seq_len is 20"]


def test_a_reader_that_leaves_gives_exit_code_141(babbler, tmp_path):
    assert read_ten_bytes_and_leave(babbler, tmp_path)[1] == 141


def test_closing_the_pipe_of_the_help_is_not_an_error(tmp_path):
    with start_cli("--help", home=tmp_path) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=30)) == (b"", 141)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    "arguments", [("generate", "-p", "hi", "-q", "--json"), ("--version",)], ids=lambda row: row[-1]
)
def test_a_full_disk_is_one_sentence(tmp_path, arguments):
    outcome = run_cli(*arguments, home=tmp_path, redirect=">/dev/full")
    assert outcome.code == 1
    assert re.fullmatch(r"metal-gen: the \w+ cannot be written: No space left on device\n", outcome.stderr)


# Signals


def interrupt(babbler, home, number, *more):
    """Send a signal in the middle of a text."""
    with start_cli("generate", "--model", babbler, "-p", "hi", *ENDLESS, *more, home=home) as process:
        begun = process.stdout.read(20)
        process.send_signal(number)
        # `communicate` would skip what has been read ahead.
        rest, stderr = process.stdout.read(), process.stderr.read()
        return process.wait(timeout=30), begun + rest, stderr.decode()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_work_and_keeps_the_text(babbler, tmp_path, number, code):
    actual, text, stderr = interrupt(babbler, tmp_path, number)
    assert actual == code
    assert len(text) >= 20
    assert is_babble(text)
    assert "Traceback" not in stderr
    seed = re.search(r"metal-gen: seed (\d+), \w+\nmetal-gen: (interrupted|terminated)\n\Z", stderr)
    again = interrupt(babbler, tmp_path, number, "--seed", seed[1])
    common = min(len(text), len(again[1])) - 1
    assert again[1][:common] == text[:common]


def test_sigterm_is_reported(babbler, tmp_path):
    assert interrupt(babbler, tmp_path, signal.SIGTERM)[2].endswith("metal-gen: terminated\n")


def test_ctrl_c_is_reported(babbler, tmp_path):
    assert interrupt(babbler, tmp_path, signal.SIGINT)[2].endswith("metal-gen: interrupted\n")


# Terminals


@pytest.mark.parametrize(("columns", "shown"), [(10, SHOWN.replace(" ", "\n")), (200, SHOWN)])
def test_a_terminal_gets_the_text_with_control_characters_visible(speaker, tmp_path, columns, shown):
    outcome = run_in_terminal(
        "generate", "--model", speaker, "-p", "hi", home=tmp_path, attached=("stdout",), columns=columns
    )
    assert (outcome.code, outcome.screen.decode()) == (0, f"{shown}\n")


def test_the_text_reaches_a_pipe_unchanged_from_a_terminal(speaker, tmp_path):
    attached = ("stdin", "stderr")
    outcome = run_in_terminal("generate", "--model", speaker, "-p", "hi", home=tmp_path, attached=attached)
    assert (outcome.code, outcome.stdout) == (0, SAID_LINE)
    assert b" tok/s" in outcome.screen


def test_on_one_screen_answer_and_messages_have_lines_of_their_own(thinker, tmp_path):
    attached = ("stdin", "stdout", "stderr")
    outcome = run_in_terminal(
        *("generate", "--model", thinker, "-p", "hi"),
        home=tmp_path,
        attached=attached,
        columns=200,
        TERM="dumb",
    )
    lines = outcome.screen.decode().splitlines()
    assert lines[1:5] == ["Thinking...", "hm \u241b.", "...done thinking.", "42"]
    assert lines[0].startswith("metal-gen: weights ")
    assert lines[5].startswith("metal-gen: ")


@pytest.mark.parametrize("changes", [{}, {"TERM": "dumb"}], ids=str)
def test_messages_break_between_words_at_any_width(speaker, tmp_path, changes):
    arguments = ("generate", "--model", speaker, "-p", "hi", "--no-thinking")
    attached = ("stderr",)
    words, counts = [], []
    for columns in (30, 400):
        outcome = run_in_terminal(*arguments, home=tmp_path, attached=attached, columns=columns, **changes)
        assert outcome.stdout == SAID_LINE
        # A bar is drawn and removed if a busy machine takes long to load.
        still = re.sub(
            r"\x1b\[\?25l.*?\x1b\[\?25h(\r?\x1b\[1A\x1b\[2K)?", "", outcome.screen.decode(), flags=re.DOTALL
        )
        plain = re.sub(r"\r|\x1b\[[\d;]*[mKA]", "", still)
        assert all(len(line) <= columns for line in plain.splitlines())
        # Without the parts that differ from run to run.
        words.append(re.sub(r"[\d.]+", "N", " ".join(plain.splitlines())))
        counts.append(len(plain.splitlines()))
    assert words[0] == words[1]
    assert counts[0] > counts[1]


def test_a_terminal_gets_tabs_as_they_are(text_checkpoints, tmp_path):
    folder = write_text_checkpoint(text_checkpoints / "tabs", says=b"a\tb")
    outcome = run_in_terminal(
        "generate", "--model", str(folder), "-p", "hi", home=tmp_path, attached=("stdout",)
    )
    assert (outcome.code, outcome.screen) == (0, b"a\tb\n")


def test_a_terminal_that_cannot_show_a_character_gets_the_rest(speaker, tmp_path):
    outcome = run_in_terminal(
        "generate",
        "--model",
        speaker,
        "-p",
        "hi",
        home=tmp_path,
        attached=("stdout",),
        PYTHONIOENCODING="ascii",
    )
    assert outcome.code == 0
    assert outcome.screen.startswith(b"[red] a")


def screen_of_messages(thinker, home, **changes):
    attached = ("stdin", "stdout", "stderr")
    outcome = run_in_terminal(
        "generate", "--model", thinker, "-p", "hi", home=home, attached=attached, **changes
    )
    assert outcome.code == 0
    assert b"42" in outcome.screen
    return outcome.screen


def test_messages_on_a_terminal_are_styled(thinker, tmp_path):
    assert ESCAPE in screen_of_messages(thinker, tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"TERM": "dumb"}, id="dumb"),
        pytest.param({"NO_COLOR": "1"}, id="no-color"),
    ],
)
def test_no_escape_sequences_where_they_are_not_wanted(thinker, tmp_path, changes):
    assert ESCAPE not in screen_of_messages(thinker, tmp_path, **changes)


def test_no_color_where_it_is_not_wanted(tmp_path):
    styled, plain = (
        run_in_terminal("generate", "--bogus", home=tmp_path, attached=("stderr",), **changes)
        for changes in ({}, {"NO_COLOR": "1"})
    )
    assert styled.code == plain.code == 2
    red = re.compile(rb"\x1b\[(?:\d+;)*31m")
    assert red.search(styled.screen)
    assert not red.search(plain.screen)


@pytest.mark.parametrize("arguments", [("--help",), ("generate", "--help"), ("--version",)], ids=" ".join)
def test_help_is_text_in_a_pipe(tmp_path, arguments):
    outcome = run_cli(*arguments, home=tmp_path)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout
    assert ESCAPE not in outcome.stdout
