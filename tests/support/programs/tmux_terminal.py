"""Runs `metal-gen` in a terminal, with keys as a person types them."""

import shlex
from pathlib import Path

import pytest
from cli_process import clean_environment, command
from tmux_session import HAS_TMUX, TmuxSession

needs_tmux = pytest.mark.skipif(not HAS_TMUX, reason="tmux is not here")


class Terminal(TmuxSession):
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
        self._code = home / ".exit-code"
        # Run the command in a shell that Ctrl-C does not end, on a screen that stays.
        script = f"trap : INT; {shlex.join(command(*arguments))}; echo $? >{self._code}; exec sleep 1000"
        environment = clean_environment(home, TMUX=None, **changes)
        super().__init__(script, home, environment, columns=columns, rows=rows)

    @property
    def exit_code(self) -> int | None:
        """Exit code of the command; None while it runs."""
        text = self._code.read_text() if self._code.exists() else ""
        return int(text) if text.endswith("\n") else None

    def wait_for_end(self) -> int:
        """Wait until the command has ended, and return its exit code."""
        self.wait_until(lambda _: self.exit_code is not None)
        code = self.exit_code
        assert code is not None
        return code
