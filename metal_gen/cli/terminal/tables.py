"""Tables on stdout: aligned if they fit, a list if they do not, one line per row in a pipe.

Decides only the layout; the commands decide the contents.
"""

import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from metal_gen.byte_sizes import format_bytes
from metal_gen.cli.terminal.console import Console
from metal_gen.cli.terminal.streams import rich_console
from metal_gen.control_characters import visible

# A pipe has no width.
UNBOUNDED = 100_000
NARROWEST_NAME = 20
GAP = 2
UNITS = {"_tps": " tok/s", "_s": " s"}
# Endings of the names of byte sizes in MLX's device info.
SIZES_OF_MLX = ("_size", "_length", "_memory")


@dataclass(frozen=True)
class Column:
    """The heading of a column; figures are aligned right."""

    name: str
    is_figure: bool = False


def print_rendered(render: Callable[[int], RenderableType], console: Console) -> None:
    """Print something whose layout depends on the width.

    Args:
        render: Returns the output for a width: the terminal's columns, or `UNBOUNDED`.
        console: The console of the run.
    """
    if console.stdout_is_terminal:
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        terminal = rich_console(sys.stdout)
        terminal.print(render(terminal.width), soft_wrap=False)
    else:
        console.write_text(to_plain(render(UNBOUNDED)))


def to_plain(renderable: RenderableType, width: int = UNBOUNDED) -> str:
    """Return the output without colors and without spaces at the ends of lines."""
    text = io.StringIO()
    console = RichConsole(
        file=text, width=width, color_system=None, markup=False, emoji=False, highlight=False
    )
    console.print(renderable)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def print_json(value: object, console: Console) -> None:
    """Print a JSON value, indented."""
    console.write_text(json.dumps(value, indent=2) + "\n")


def print_path(path: Path, console: Console) -> None:
    """Print a path: its own bytes, which may not be UTF-8, to a pipe; visible characters to a terminal."""
    if console.stdout_is_terminal:
        console.write_text(f"{shown(str(path))}\n")
    else:
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")


def shown(text: str) -> str:
    """Return a name or a path so that a terminal can show it, whatever its bytes."""
    return visible(text.encode(errors="surrogateescape").decode(errors="backslashreplace"))


def rows_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> RenderableType:
    """Return a table of rows; if `width` is too small, a list per row under its first cell.

    The first column has names, which may wrap before that happens.
    """
    cells = [[column.name, *(row[place] for row in rows)] for place, column in enumerate(columns)]
    needed = [max(map(cell_len, column)) for column in cells]
    room = width - sum(needed[1:]) - GAP * (len(columns) - 1)
    if room < min(needed[0], NARROWEST_NAME):
        return Group(*(_as_list(columns, row) for row in rows))
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in columns:
        cut = {"max_width": room} if column is columns[0] else {"no_wrap": True}
        table.add_column(column.name, justify="right" if column.is_figure else "left", overflow="fold", **cut)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _as_list(columns: Sequence[Column], row: Sequence[str]) -> RenderableType:
    names = [column.name for column in columns[1:]]
    rest = pairs_table([*zip(names, row[1:], strict=True)])
    # A figure needs its name to make sense.
    title = f"{columns[0].name} {row[0]}" if columns[0].is_figure else row[0]
    return Group(Text(title, style="bold", overflow="fold"), Padding(rest, (0, 0, 0, 2)))


def pairs_table(pairs: Sequence[tuple[str, str]]) -> Table:
    """Return a table of names and values; empty values are left out."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            table.add_row(name, Text(value))
    return table


def details_table(details: Mapping[str, object], labels: Mapping[str, str] | None = None) -> Table:
    """Return a table of JSON values by name; unknown values are left out.

    Args:
        details: Values by name; the names end in their units.
        labels: Labels of names that cannot be derived from the name.
    """
    labels = labels or {}
    return pairs_table([(labels.get(name, _label(name)), _written(name, of)) for name, of in details.items()])


def _label(name: str) -> str:
    ending = next((ending for ending in ("_bytes", *UNITS) if name.endswith(ending)), "")
    return name.removesuffix(ending).replace("_", " ")


def _written(name: str, value: object) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{shown(key)} {_written(_part(name, key), part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return format_bytes(value) if name.endswith("_bytes") else f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3g}" + next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return "" if value is None else shown(str(value))


def _part(of: str, name: str) -> str:
    """Return the name of a value within a dictionary, with its unit."""
    is_size = of == "files" or (of == "mlx_says" and name.endswith(SIZES_OF_MLX))
    return f"{name}_bytes" if is_size else name
