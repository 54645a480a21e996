"""Tests drawing and colors, per stream and environment."""

import io
import os
import pty
import re
import sys
import termios
import time
from contextlib import suppress

import pytest
from tiny_text_checkpoint import SAID_LINE

from metal_gen.cli.terminal import console as console_module
from metal_gen.cli.terminal import progress
from metal_gen.cli.terminal import streams as terminal
from metal_gen.cli.terminal.console import Console

pytest_plugins = ("fixtures_text", "fixtures_cli")

VARIABLES = ("NO_COLOR", "FORCE_COLOR", "TERM", "COLORTERM", "COLUMNS", "LINES")


@pytest.fixture
def environment(monkeypatch):
    """Set the variables that concern terminals, and remove the others."""

    def environment(**variables):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in {"TERM": "xterm-256color", **variables}.items():
            monkeypatch.setenv(name, value)

    environment()
    return environment


@pytest.fixture
def show(monkeypatch, environment):
    """Do something with stderr on a terminal of 80 columns; return what that received."""
    monkeypatch.setattr(progress, "PATIENCE_S", 0.0)
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    os.set_blocking(master, False)
    stream = os.fdopen(slave, "w")

    def show(work):
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr", stream)
            work()
        chunks = []
        with suppress(BlockingIOError):
            while True:
                chunks.append(os.read(master, 65536))
        return b"".join(chunks).decode()

    yield show
    stream.close()
    os.close(master)


@pytest.fixture
def think(run_here, thinker):
    """Generate with progress through the prompt, and some options."""

    def think(*arguments):
        outcome = run_here(
            "generate", "-m", thinker, "-p", "hi", "--chunk-size", "4", "--seed", "7", *arguments
        )
        assert outcome.code == 0

    return think


def strip_styles(shown):
    return re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", shown)


class Stream:
    closed = False

    def __init__(self, *, is_terminal):
        self.isatty = lambda: is_terminal


@pytest.mark.parametrize(
    ("variables", "is_terminal", "color", "animation"),
    [
        ({}, True, True, True),
        ({}, False, False, False),
        ({"TERM": "dumb"}, True, False, False),
        ({"TERM": ""}, True, False, False),
        ({"NO_COLOR": "1"}, True, False, False),
        ({"NO_COLOR": ""}, True, True, True),
        ({"FORCE_COLOR": "1"}, False, True, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False, False),
    ],
)
def test_what_the_environment_wishes(environment, variables, is_terminal, color, animation):
    environment(**variables)
    stream = Stream(is_terminal=is_terminal)
    assert (terminal.shows_color(stream), terminal.shows_animation(stream)) == (color, animation)


def test_color_by_force_is_for_messages_and_never_for_the_text(run_here, environment, speaker):
    environment(FORCE_COLOR="1")
    outcome = run_here("generate", "-m", speaker, "-p", "hi")
    assert outcome.stdout == SAID_LINE
    assert outcome.stderr.startswith("\x1b[2mmetal-gen: seed ")


def test_thinking_can_be_hidden(run_here, thinker, tmp_path):
    (tmp_path / "settings.toml").write_text("[terminal]\nhide_thinking = true\n")
    for arguments in (("--hide-thinking",), ("--config", "settings.toml")):
        outcome = run_here("generate", "-m", thinker, "-p", "hi", *arguments)
        assert (outcome.code, outcome.stdout) == (0, b"42\n")
        assert outcome.stderr.startswith("metal-gen: seed ")
    shown = run_here("generate", "-m", thinker, "-p", "hi", *arguments, "--no-hide-thinking").stderr
    assert shown.startswith("Thinking...\nhm")


@pytest.mark.parametrize(
    ("arguments", "bars", "hidden"),
    [
        (("--hide-thinking",), ["reading the prompt", "thinking"], "hm"),
        (("-o", "out"), ["reading the prompt", "writing"], "42\r\n"),
        (("--json",), ["reading the prompt", "generating"], "hm"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_bar_says_what_is_waited_for_and_is_gone_in_the_end(show, think, arguments, bars, hidden):
    shown = show(lambda: think(*arguments))
    places = [shown.index(bar) for bar in bars]
    assert places == sorted(places)
    assert hidden not in shown
    # Each bar's line is erased before anything else is written.
    closing = strip_styles(shown[shown.rindex("\x1b[2K") :])
    assert closing.startswith("metal-gen: prompt 20, thinking 6, answer 5 tokens; stop (eos); ")
    assert "cache 31 of 256" in closing


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_no_bar_where_none_is_wanted(show, environment, think, variables):
    environment(**variables)
    shown = show(lambda: think("--hide-thinking"))
    assert "\x1b" not in shown
    assert "reading the prompt" not in shown


def wait_for_bar(console):
    end_s = time.monotonic() + 20
    while console.bar is None:
        assert time.monotonic() < end_s
        time.sleep(0.005)


@pytest.mark.parametrize(("total", "counted"), [(None, ""), (1300, "0/1300")])
def test_a_bar_appears_before_anything_is_done_and_makes_way_for_messages(show, total, counted):
    def work():
        console = Console()
        with progress.PhaseBar(console) as bar:
            bar.begin("reading", total)
            wait_for_bar(console)
            console.note("a message")
            assert console.bar is not None
            bar.begin("writing")
            wait_for_bar(console)
        assert console.bar is None
        console.note("the end")

    shown = show(work)
    before, after = shown.split("a message")
    assert "reading" in before
    assert counted in before
    assert "reading" in after
    # A message is preceded by an erased line.
    for text in ("a message", "the end"):
        assert strip_styles(shown[: shown.index(text)].rpartition("\x1b[2K")[2]) == "metal-gen: "
    assert "writing" not in shown[shown.rindex("\x1b[2K") :]


def test_work_that_is_done_at_once_draws_nothing(show, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE_S", 60.0)

    def work():
        with progress.ProgressBar(Console(), "loading") as bar:
            bar.update(1, 2)

    assert show(work) == ""


def test_a_narrow_screen_has_room_for_the_numbers(show, environment):
    environment(COLUMNS="40")

    def download():
        with progress.ProgressBar(Console(), "downloading Qwen/Qwen3-0.6B", is_bytes=True) as bar:
            bar.update(1_200_000_000, 1_500_000_000)

    assert "1.1/1.4 GiB" in show(download)


def test_a_signal_right_after_a_piece_is_shown_leaves_the_cursor_at_the_start_of_a_line(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)

    def show_and_stop(terminal, text):
        screen.write(text)
        raise KeyboardInterrupt

    monkeypatch.setattr(Console, "stdout_is_terminal", True)
    monkeypatch.setattr(Console, "_stdout", None)
    console = Console()
    with monkeypatch.context() as patch:
        patch.setattr(console_module, "print_unchanged", show_and_stop)
        with pytest.raises(KeyboardInterrupt):
            console.write_text("abc")
    monkeypatch.setattr(console_module, "print_unchanged", lambda terminal, text: screen.write(text))
    console.end_text()
    assert screen.getvalue() == "abc\n"
