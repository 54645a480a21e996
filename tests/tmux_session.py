"""A shell in a real terminal, typed into and looked at through tmux."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PROMPT = "$ "
TIMEOUT_S = 30
HAS_TMUX = shutil.which("tmux") is not None


class TmuxSession:
    """A shell in which `metal-gen` is a command; left, it ends.

    Args:
        home: The folder that the shell is in.
        environment: Of the shell; its kind of terminal is seen to here.
        columns: Of the terminal.
        rows: Of the terminal.
    """

    def __init__(
        self, home: Path, environment: Mapping[str, str], *, columns: int = 80, rows: int = 8
    ) -> None:
        self._server = f"metal-gen-{os.getpid()}-{time.monotonic_ns()}"
        (home / "shell").write_text(f"alias metal-gen='{sys.executable} -m metal_gen'\n")
        shell = {"ENV": str(home / "shell"), "PS1": PROMPT, "TERM": "screen-256color"}
        settings = [f"{name}={value}" for name, value in {**environment, **shell}.items()]
        size = ("-x", str(columns), "-y", str(rows), "-c", str(home))
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "env", "-i", *settings, "sh")
        try:
            self.wait_for(lambda: self.screen().startswith(PROMPT.strip()))
        except AssertionError:
            self._tmux("kill-server")
            raise

    def __enter__(self) -> "TmuxSession":
        return self

    def __exit__(self, *exception: object) -> None:
        self._tmux("kill-server")

    def run(self, line: str) -> None:
        """Type a line, and Enter."""
        self._tmux("send-keys", "-l", line)
        self.press("Enter")

    def press(self, key: str) -> None:
        """Press a key by its name, such as `C-c`."""
        self._tmux("send-keys", key)

    def resize(self, columns: int, rows: int) -> None:
        """Make the window larger or smaller."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self, *, scrollback: bool = False, styled: bool = False) -> str:
        """What can be read, without spaces at the ends of lines; `styled` with its escape sequences."""
        options = [*(("-S", "-") if scrollback else ()), *(["-e"] if styled else [])]
        return self._tmux("capture-pane", "-p", *options).rstrip("\n") + "\n"

    def lines_scrolled_off(self) -> int:
        """How many lines there have been above the screen."""
        return int(self._tmux("display-message", "-p", "#{history_size}"))

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Look again and again until this holds."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, self.screen(scrollback=True)
            time.sleep(0.02)

    def wait_for_prompt(self) -> None:
        """Wait until the shell takes another line."""
        self.wait_for(lambda: self.screen().endswith(f"\n{PROMPT.strip()}\n"))

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._server, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout
