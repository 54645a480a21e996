"""The capabilities of a stream: terminal, color, animation, width; and writing to it.

`NO_COLOR`, `TERM=dumb` and a redirected stream mean neither color nor animation. `FORCE_COLOR` enables only
color.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from metal_gen.errors import MetalGenError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether a stream is a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


def shows_color(stream: TextIO | None) -> bool:
    """Return whether messages may have colors."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (is_terminal(stream) and not _is_dumb())


def shows_animation(stream: TextIO | None) -> bool:
    """Return whether drawn text, such as a bar, may be overwritten."""
    return is_terminal(stream) and not _is_dumb() and not os.environ.get("NO_COLOR")


def columns(stream: TextIO | None) -> int:
    """Return the width of a stream's terminal; 0 without a terminal, or if unknown."""
    if not is_terminal(stream):
        return 0
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdecimal() and int(wanted):
        return int(wanted)
    try:
        return os.get_terminal_size(stream.fileno()).columns  # type: ignore[union-attr]
    except (OSError, ValueError):
        return 0


def are_one_file(one: TextIO | None, other: TextIO | None) -> bool:
    """Return whether both streams write to the same file or pipe."""
    if one is None or other is None:
        return False
    try:
        first, second = os.fstat(one.fileno()), os.fstat(other.fileno())
    except (OSError, ValueError):
        return False
    return not stat.S_ISCHR(first.st_mode) and os.path.samestat(first, second)


def rich_console(stream: TextIO) -> "RichConsole":
    """Return a rich console that leaves text unchanged, and uses colors only if allowed."""
    from rich.console import Console as RichConsole
    from rich.theme import Theme

    # Rich gives inline code a black background, which looks like a block on a light screen.
    theme = Theme({"markdown.code": "bold cyan"})
    return RichConsole(
        file=stream,
        color_system="auto" if shows_color(stream) else None,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=True,
        theme=theme,
    )


def _is_dumb() -> bool:
    return os.environ.get("TERM", "") in ("", "dumb", "unknown")


@contextmanager
def naming_what_cannot_be_written() -> Iterator[None]:
    """Turn an OSError, such as a full disk, into a MetalGenError; pass on a closed pipe."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise MetalGenError(f"the text cannot be written: {error.strerror}") from error


def print_unchanged(console: "RichConsole", text: str, style: str = "") -> None:
    """Print through rich without wrapping lines or expanding tabs."""
    from rich.segment import Segment, Segments

    segment = Segment(text, console.get_style(style) if style else None)
    console.print(Segments([segment]), end="", soft_wrap=True)
