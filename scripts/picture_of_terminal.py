#!/usr/bin/env python3
r"""Draws a terminal after some commands as SVG.

    python scripts/picture_of_terminal.py -o scripts/pictures/generate.svg \
        'metal-gen generate --prompt "Tell me a story about a fox who lost a lantern" --seed 4' \
        "echo 'Tell me a story about an owl' | metal-gen generate --json --seed 2 -q | jq -cM .usage"

The commands really run, in tmux. The next line is typed when the shell is ready, or when the screen has not
changed for five seconds.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.terminal_theme import MONOKAI

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support" / "programs"))

from tmux_session import PROMPT, Shell  # noqa: E402

STILL_S = 5.0
ROWS = 60


def record(lines: Sequence[str], columns: int) -> str:
    """Type lines; return the final screen, with its escape sequences."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("METAL_GEN_", "TMUX"))}
    with tempfile.TemporaryDirectory() as home:
        environment = {**ours, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "HOME": home}
        with Shell(Path(home), environment, columns=columns, rows=ROWS) as shell:
            shell.wait_until(shell.is_ready)
            for line in lines:
                shell.type(line, "Enter")
                wait_for_turn(shell, shell.screen)
            return shell.styled_screen


def wait_for_turn(shell: Shell, screen: list[str]) -> None:
    """Wait until another line can be typed."""
    since_s = time.monotonic()
    while time.monotonic() - since_s < STILL_S:
        time.sleep(0.2)
        if shell.screen != screen:
            screen, since_s = shell.screen, time.monotonic()
            if shell.is_ready(screen):
                return


def draw(screen: str, columns: int) -> str:
    """Return a screen as SVG, without the prompt at its end."""
    console = Console(file=io.StringIO(), record=True, width=columns, force_terminal=True)
    lines = list(AnsiDecoder().decode(screen.rstrip("\n")))
    if lines[-1].plain.strip() == PROMPT.strip():
        lines.pop()
    for line in lines:
        console.print(line, soft_wrap=True)
    return console.export_svg(title="", theme=MONOKAI, unique_id="terminal")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lines", nargs="+", metavar="LINE", help="what to type into the shell")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="an SVG file")
    parser.add_argument("--columns", type=int, default=100, metavar="N")
    given = parser.parse_args(arguments)
    given.output.write_text(draw(record(given.lines, given.columns), given.columns))


if __name__ == "__main__":
    main()
