"""A terminal with a person before it: tmux runs a command, and its keys and its screen are at hand."""

import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_process import clean_environment, command

PATIENCE_S = 8
GLANCE_S = 0.02

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not here")


class Terminal:
    """A screen on which `metal-gen` runs.

    Args:
        arguments: After `metal-gen`.
        home: Stands in for the home folder, and is the working directory.
        columns: Width of the screen.
        rows: Height of the screen.
        changes: As for `clean_environment`.
    """

    def __init__(
        self, *arguments: str, home: Path, columns: int = 80, rows: int = 24, **changes: str | None
    ) -> None:
        # Of its own, and short: the name of a socket may not be long.
        self._folder = Path(tempfile.mkdtemp(prefix="tmux"))
        self._environment = clean_environment(home, TMUX=None, **changes)
        size = ("-x", str(columns), "-y", str(rows))
        # Of tmux, not of where the tests run.
        variables = [f"-e{name}={value}" for name, value in self._environment.items() if name != "TERM"]
        self._code = self._folder / "code"
        # Beside the command a shell that Ctrl-C does not end, and a screen that stays.
        script = f"trap : INT; {shlex.join(command(*arguments))}; echo $? >{self._code}; exec sleep 1000"
        self._tmux(
            "new-session", "-d", *size, *variables, "-c", str(home), f"exec sh -c {shlex.quote(script)}"
        )

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *exception: object) -> None:
        self._tmux("kill-server")
        shutil.rmtree(self._folder)

    def type(self, text: str, *keys: str) -> None:
        """Type a text, then press keys by tmux's names of them."""
        if text:
            self._tmux("send-keys", "-l", text)
        if keys:
            self._tmux("send-keys", *keys)

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    @property
    def screen(self) -> list[str]:
        """The lines on the screen, those that were wrapped joined again, without empty ones at the end."""
        return self._tmux("capture-pane", "-p", "-J").rstrip().splitlines()

    @property
    def exit_code(self) -> int | None:
        """Of the command; None while it runs."""
        text = self._code.read_text() if self._code.exists() else ""
        return int(text) if text.endswith("\n") else None

    def wait_until(self, holds: Callable[[list[str]], bool]) -> None:
        """Look at the screen until something holds of its lines."""
        end = time.monotonic() + PATIENCE_S
        while not holds(self.screen):
            assert time.monotonic() < end, "\n".join(
                ["waited for too long before this screen:", *self.screen]
            )
            time.sleep(GLANCE_S)

    def wait_for_end(self) -> int:
        """Wait until the command has ended; returns its exit code."""
        self.wait_until(lambda _: self.exit_code is not None)
        code = self.exit_code
        assert code is not None
        return code

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self._folder / "socket"), "-f", "/dev/null", *arguments],
            env=self._environment,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
            check=True,
        )
        return done.stdout
