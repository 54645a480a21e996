"""Runs a program in a real terminal of tmux, with access to its keys and its screen."""

import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PROMPT = "$ "
PATIENCE_S = 20
GLANCE_S = 0.02
HAS_TMUX = shutil.which("tmux") is not None


class TmuxSession:
    """A screen on which a script runs; left, it ends.

    Args:
        script: For `sh`.
        home: The working directory.
        environment: Of the script; of it tmux sets the kind of terminal itself.
        columns: Width of the screen.
        rows: Height of the screen.
    """

    def __init__(
        self, script: str, home: Path, environment: Mapping[str, str], *, columns: int, rows: int
    ) -> None:
        # A separate and short path, because the name of a socket must not be long.
        self.folder = Path(tempfile.mkdtemp(prefix="tmux"))
        self._environment = dict(environment)
        size = ("-x", str(columns), "-y", str(rows))
        # The terminal type of tmux, not that of the tests.
        variables = [f"-e{name}={value}" for name, value in environment.items() if name != "TERM"]
        self._tmux(
            "new-session", "-d", *size, *variables, "-c", str(home), f"exec sh -c {shlex.quote(script)}"
        )

    def __enter__(self) -> "TmuxSession":
        return self

    def __exit__(self, *exception: object) -> None:
        self._tmux("kill-server")
        shutil.rmtree(self.folder)

    def type(self, text: str, *keys: str) -> None:
        """Type a text, then press keys by tmux's names."""
        if text:
            self._tmux("send-keys", "-l", text)
        if keys:
            self._tmux("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Paste a text as a terminal does: marked as pasted if the program has asked for it."""
        self._tmux("set-buffer", text)
        self._tmux("paste-buffer", "-p")

    def resize(self, columns: int, rows: int) -> None:
        """Change the size of the window."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(rows))

    @property
    def screen(self) -> list[str]:
        """Return the lines on the screen, with wrapped lines joined, without empty ones at the end."""
        return self._tmux("capture-pane", "-p", "-J").rstrip().splitlines()

    @property
    def scrollback(self) -> list[str]:
        """Return the same, with the lines above the screen."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-").rstrip().splitlines()

    @property
    def styled_screen(self) -> str:
        """Return the screen with its escape sequences."""
        return self._tmux("capture-pane", "-p", "-e").rstrip()

    @property
    def lines_scrolled_off(self) -> int:
        """Return the number of lines above the screen."""
        return int(self._tmux("display-message", "-p", "#{history_size}"))

    def wait_until(self, holds: Callable[[list[str]], bool]) -> None:
        """Wait until a condition holds for the lines on the screen."""
        end = time.monotonic() + PATIENCE_S
        while not holds(self.screen):
            assert time.monotonic() < end, "\n".join(
                ["waited for too long before this screen:", *self.screen]
            )
            time.sleep(GLANCE_S)

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", str(self.folder / "socket"), "-f", "/dev/null", *arguments],
            env=self._environment,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
            check=True,
        )
        return done.stdout


class Shell(TmuxSession):
    """A shell in which `metal-gen` is a command.

    Args:
        home: As of `TmuxSession`.
        environment: As of `TmuxSession`.
        columns: As of `TmuxSession`.
        rows: As of `TmuxSession`.
    """

    def __init__(self, home: Path, environment: Mapping[str, str], *, columns: int, rows: int) -> None:
        start = home / "start-of-shell"
        start.write_text(f"PS1='{PROMPT}'\nalias metal-gen='{sys.executable} -m metal_gen'\n")
        super().__init__("exec sh -i", home, {**environment, "ENV": str(start)}, columns=columns, rows=rows)

    def __enter__(self) -> "Shell":
        return self

    def run(self, line: str) -> None:
        """Type a line when the shell is ready, and wait until it is visible."""
        self.wait_until(self.is_ready)
        before = self.screen
        self.type(line, "Enter")
        self.wait_until(lambda screen: screen != before)

    @staticmethod
    def is_ready(screen: list[str]) -> bool:
        """Return whether the shell waits for a line."""
        return screen[-1:] == [PROMPT.strip()]
