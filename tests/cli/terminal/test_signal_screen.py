"""Tests what a signal leaves on the screen: its message on a line of its own, and the terminal as it was."""

import io
import os
import pty
import signal
import sys
import termios
import threading
import time
from contextlib import contextmanager

import pytest
from cli_process import clean_environment
from rich.console import Console as RichConsole
from tmux_session import Shell
from tmux_terminal import needs_tmux

from metal_gen.cli import signals
from metal_gen.cli.chat.interrupts import Interrupts
from metal_gen.cli.signals import ERASE_LINE, SHOW_CURSOR, SignalWatch, leave_screen, restore_modes
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.progress_columns import ECHO, ScreenOfBars

pytest_plugins = ("fixtures_text",)

BAR = "reading the prompt"
# Prefill takes a minute, in one step that does not return to Python, as in MLX.
SLOW_PREFILL = """
from hashlib import pbkdf2_hmac
from metal_gen.cli.main import run
from metal_gen.engine.decoder import Decoder
def prefill(*arguments, **named):
    pbkdf2_hmac("sha256", b"", b"", 10**9)
Decoder.prefill = prefill
run()
"""


class Bar:
    """A bar that notes when it is hidden."""

    def __init__(self):
        self.events = []

    @contextmanager
    def hidden(self):
        self.events.append("hidden")
        yield
        self.events.append("drawn")


@pytest.fixture
def console(monkeypatch):
    """A quiet console that owns the screen."""
    console = Console(quiet=True)
    monkeypatch.setattr(Console, "on_screen", console)
    return console


def test_the_message_of_a_long_step_hides_the_bar_even_in_quiet_mode(console, monkeypatch, capsys):
    console.bar = bar = Bar()
    watch, left = SignalWatch(), []
    monkeypatch.setattr(signals, "PATIENCE_S", 0.01)
    monkeypatch.setattr(signal, "getsignal", lambda number: watch._stop)
    monkeypatch.setattr(watch, "_leave", left.append)
    reading, writing = os.pipe()
    thread = threading.Thread(target=watch._watch, args=(reading,), daemon=True)
    thread.start()
    os.write(writing, bytes([signal.SIGINT]))
    while len(bar.events) < 2:
        time.sleep(0.001)
    assert bar.events == ["hidden", "drawn"]
    assert left == []
    os.write(writing, bytes([signal.SIGTERM]))
    thread.join()
    assert left == [signal.SIGTERM]
    assert "interrupted: stopping after the current step" in capsys.readouterr().err
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    ("has_bar", "has_line", "has_echo", "written"),
    [
        (False, False, False, SHOW_CURSOR),
        (False, False, True, SHOW_CURSOR + b"\n"),
        (True, False, True, SHOW_CURSOR + ERASE_LINE),
        (True, False, False, SHOW_CURSOR + ERASE_LINE),
        (False, True, True, SHOW_CURSOR + b"\n"),
        (False, True, False, SHOW_CURSOR + b"\n"),
    ],
)
def test_a_process_that_leaves_at_once_ends_the_line(
    console, monkeypatch, has_bar, has_line, has_echo, written
):
    console.bar = Bar() if has_bar else None
    if has_line:
        monkeypatch.setattr(console, "_unfinished_line", sys.__stdout__)
    out = io.BytesIO()
    monkeypatch.setattr(signals, "shows_animation", lambda stream: True)
    monkeypatch.setattr(signals.os, "write", lambda descriptor, data: out.write(data))
    leave_screen(has_echo=has_echo)
    assert out.getvalue() == written


def test_a_log_gets_no_control_characters(monkeypatch):
    monkeypatch.setattr(Console, "on_screen", None)
    out = io.BytesIO()
    monkeypatch.setattr(signals.os, "write", lambda descriptor, data: out.write(data))
    leave_screen(has_echo=True)
    assert out.getvalue() == b""


@pytest.mark.parametrize("in_background", [False, True])
def test_the_terminal_gets_its_modes_back_unless_another_process_uses_it(monkeypatch, in_background):
    ours, theirs = pty.openpty()
    monkeypatch.setattr(signals, "STDIN", theirs)
    before = signals.terminal_modes()
    changed = termios.tcgetattr(theirs)
    changed[3] &= ~(termios.ECHO | termios.ICANON)
    termios.tcsetattr(theirs, termios.TCSANOW, changed)
    monkeypatch.setattr(os, "tcgetpgrp", lambda descriptor: os.getpgrp() + in_background)
    restore_modes(before)
    assert (termios.tcgetattr(theirs) == before) is not in_background
    os.close(ours)
    os.close(theirs)


def test_a_typed_line_leaves_the_watch_its_pipe():
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        with Interrupts().reading():
            signal.set_wakeup_fd(-1)  # as an event loop does when it closes
        assert signal.set_wakeup_fd(-1) == writing
    finally:
        signal.set_wakeup_fd(before)
        os.close(reading)
        os.close(writing)


def test_a_bar_leaves_room_for_the_echo_of_ctrl_c(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert ScreenOfBars().width == RichConsole(stderr=True).width - len(ECHO)


@pytest.mark.tmux
@needs_tmux
def test_ctrl_c_twice_in_a_long_step_leaves_the_prompt_on_a_line_of_its_own(speaker, tmp_path):
    (tmp_path / "slow.py").write_text(SLOW_PREFILL)
    with Shell(tmp_path, clean_environment(tmp_path, TMUX=None), columns=80, rows=12) as shell:
        shell.run(f"{sys.executable} slow.py generate -m {speaker} -p hi")
        shell.wait_until(lambda screen: any(BAR in line for line in screen))
        shell.type("", "C-c")
        shell.wait_until(lambda screen: any("press Ctrl-C" in line for line in screen))
        shell.wait_until(lambda screen: sum(BAR in line for line in screen) == 1)
        lines = [line for line in shell.screen if line.strip()]
        place = next(place for place, line in enumerate(lines) if "interrupted" in line)
        assert lines[place].startswith("metal-gen: interrupted: stopping after")
        assert lines[place + 1].rstrip() == "stop now"
        shell.type("", "C-c")
        shell.wait_until(shell.is_ready)
        assert not any(BAR in line or "^C" in line for line in shell.screen)
