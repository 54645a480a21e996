"""How the help of every command looks, and when it is shown unasked."""

import re
import shutil
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from typing import Any, TypeVar

import typer
import typer.core

from metal_gen.errors import ExitCode

CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
EXAMPLES_HEADING = "Examples:"
# Of a terminal; with fewer columns typer's panels cut the names of options.
NARROWEST_PANELS = 78

_Function = TypeVar("_Function", bound=Callable[..., None])


def epilog(*examples: str) -> str:
    """Commands to copy, for the end of a command's help.

    Each is a paragraph: some versions of typer join the lines of one.
    """
    return "\n\n".join((EXAMPLES_HEADING, *examples))


def _fit_help(command: Any, formatter: Any) -> None:
    """Do without panels where they do not fit."""
    columns = shutil.get_terminal_size().columns
    if columns < NARROWEST_PANELS:
        command.rich_markup_mode = None
        formatter.width = columns
        # What explains an option has half of the line at least.
        formatter.write_dl = partial(formatter.write_dl, col_max=min(30, columns // 2 - 4))


class Command(typer.core.TyperCommand):
    """A command whose docstring's lines are joined, for a terminal of any width."""

    def __init__(self, *arguments: Any, help: str | None = None, **settings: Any) -> None:
        joined = re.sub(r"(?<!\n)\n(?!\n)", " ", (help or "").strip())
        super().__init__(*arguments, help=joined, **settings)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, in panels or plain."""
        _fit_help(self, formatter)
        super().format_help(ctx, formatter)


class Group(typer.core.TyperGroup):
    """Commands below one name. Without one of them the help is shown, which is no result of anything."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments; help that nobody asked for goes to stderr."""
        if args or ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        with redirect_stdout(sys.stderr):
            # Panels are printed by asking for them.
            if plain := ctx.get_help():
                print(plain)
        raise typer.Exit(ExitCode.USAGE)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, in panels or plain."""
        _fit_help(self, formatter)
        super().format_help(ctx, formatter)


def add_command(group: typer.Typer, name: str, *examples: str) -> Callable[[_Function], _Function]:
    """Make a function a command of a group, with examples at the end of its help."""
    return group.command(name, cls=Command, epilog=epilog(*examples))


def command_group(name: str, help: str, *examples: str) -> typer.Typer:
    """A group of commands that is itself a command of the program."""
    return typer.Typer(
        name=name,
        cls=Group,
        help=help,
        no_args_is_help=True,
        add_completion=False,
        context_settings=CONTEXT_SETTINGS,
        epilog=epilog(*examples),
    )
