"""Help for a narrow terminal: the same groups without panels, and text wrapped instead of cut."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from metal_gen.cli.examples import broken, examples_in
from metal_gen.cli.option_help import described, names_of

INDENT, DEEPER = 2, 6


def narrow_help(command: Any, context: Any, width: int) -> str:
    """Return the help of a command or a group of commands.

    Args:
        command: The command of typer.
        context: The command's context.
        width: Number of columns available.
    """
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    lines = [*_wrapped(f"Usage: {usage}", width)]
    for paragraph in (command.help or "").split("\n\n"):
        lines += ["", *_wrapped(paragraph, width)]
    for title, rows in _groups(command, context):
        lines += ["", f"{title}:"]
        for name, text in rows:
            lines += [*_wrapped(name, width, INDENT), *_wrapped(text, width, DEEPER)]
    if examples := examples_in(command.epilog or ""):
        lines += ["", "Examples:"]
        for example in examples:
            lines += textwrap.indent(broken(example, width - INDENT), INDENT * " ").splitlines()
    return "\n".join(lines)


def _groups(command: Any, context: Any) -> Iterator[tuple[str, Sequence[tuple[str, str]]]]:
    """Yield each group's title and rows: arguments, options by panel, commands by panel."""
    params = [param for param in command.get_params(context) if not getattr(param, "hidden", False)]
    kinds = {"argument": "Arguments", "option": "Options"}
    rows = [
        (param.rich_help_panel or kinds[param.param_type_name], (names_of(param), described(param)))
        for param in params
        if param.param_type_name in kinds
    ]
    titles = [title for title, _ in rows]
    rows.sort(key=lambda row: _place(row[0], titles))
    if hasattr(command, "list_commands"):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            first = (found.help or "").split("\n\n")[0]
            rows.append((found.rich_help_panel or "Commands", (name, " ".join(first.split()))))
    for title, group in groupby(rows, key=lambda row: row[0]):
        yield title, [row for _, row in group]


def _place(title: str, titles: Sequence[str]) -> int:
    """Return the position of a group: arguments and options without a panel come first, as in typer."""
    first = ["Arguments", "Options"]
    return first.index(title) if title in first else len(first) + titles.index(title)


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    blank = indent * " "
    return textwrap.wrap(
        " ".join(text.split()), width, initial_indent=blank, subsequent_indent=blank, break_on_hyphens=False
    )
