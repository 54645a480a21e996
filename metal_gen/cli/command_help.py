"""The help of every command: its layout, and when it is shown without being asked for."""

import copy
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from inspect import cleandoc
from typing import Any, TypeVar

import typer
import typer.core

from metal_gen.cli.commands_elsewhere import SAME_COMMANDS, other_command
from metal_gen.cli.examples import epilog
from metal_gen.cli.names_elsewhere import add_other_names, other_options
from metal_gen.cli.narrow_help import narrow_help
from metal_gen.cli.option_help import with_default, without_tags
from metal_gen.cli.terminal.streams import columns, is_terminal
from metal_gen.errors import ExitCode, UsageError

CONTEXT_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"]}
# Columns of a terminal; with fewer, typer's panels cut option names.
NARROWEST_PANELS = 78
HELP_OF_HELP = "Show this help"
# With fewer columns, hardly a word fits beside the indent.
NARROWEST = 30

_Function = TypeVar("_Function", bound=Callable[..., None])


def _joined(help: str) -> str:
    """Join the lines of each paragraph; they are wrapped once the width is known."""
    return re.sub(r"(?<!\n)\n *(?!\n)", " ", cleandoc(help).strip())


def help_columns() -> int:
    """Return the columns for help: of the terminal, also one that shows what comes out of a pipe; else 80."""
    found = (columns(stream) for stream in (sys.stdout, sys.stderr, sys.stdin))
    # Reads COLUMNS.
    return max(next(filter(None, found), 0) or shutil.get_terminal_size().columns, NARROWEST)


def _write_help(command: Any, kind: type, context: Any, formatter: Any) -> None:
    """Write the help in typer's panels, or without them where there are few columns."""
    width = help_columns()
    if width < NARROWEST_PANELS:
        formatter.write(narrow_help(command, context, width) + "\n")
        return
    shown = copy.copy(command)
    shown.params = [with_default(param) for param in command.params]
    shown.help = without_tags(command.help or "")
    with _panels_of(width):
        kind.format_help(shown, context, formatter)  # type: ignore[attr-defined]


@contextmanager
def _panels_of(width: int) -> Iterator[None]:
    """Let typer draw panels of a width; by itself it may find another one than `help_columns`."""
    from typer import rich_utils

    before, rich_utils.MAX_WIDTH = rich_utils.MAX_WIDTH, width
    try:
        yield
    finally:
        rich_utils.MAX_WIDTH = before


def plain_help_option(option: Any) -> Any:
    """Remove the full stop from the help of one of typer's options."""
    if option is not None:
        option.help = HELP_OF_HELP
    return option


class Command(typer.core.TyperCommand):
    """A command whose docstring lines are joined, for a terminal of any width.

    It accepts other programs' names of its options, and says what to use for options that it does not have.
    """

    def __init__(self, *arguments: Any, help: str | None = None, **settings: Any) -> None:
        super().__init__(*arguments, help=_joined(help or ""), **settings)
        self.params.append(other_options(self.params, self.name or ""))

    def make_parser(self, ctx: Any) -> Any:
        """Create the parser of the command line."""
        parser = super().make_parser(ctx)
        add_other_names(self.params, parser, ctx)
        return parser

    def get_help_option(self, ctx: Any) -> Any:
        """Return the --help option, described in the style of the others."""
        return plain_help_option(super().get_help_option(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, without typer's braces around required ones."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, in panels or plain."""
        _write_help(self, typer.core.TyperCommand, ctx, formatter)


class Group(typer.core.TyperGroup):
    """A group of commands. Without a subcommand it shows the help and exits with a usage error."""

    def get_help_option(self, ctx: Any) -> Any:
        """Return the --help option, described in the style of the others."""
        return plain_help_option(super().get_help_option(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; help that was not asked for goes to stderr, and not into a log.

        Raises:
            UsageError: There is no subcommand, and stderr is not a terminal.
        """
        if args or ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        if not is_terminal(sys.stderr):
            raise UsageError("no command was given", f"{ctx.command_path} --help lists the commands")
        with redirect_stdout(sys.stderr):
            # With panels, `get_help` prints the help itself.
            if plain := ctx.get_help():
                print(plain)
        raise typer.Exit(ExitCode.USAGE)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first argument names.

        Raises:
            UsageError: There is none; the hint names a similar one.
        """
        name = SAME_COMMANDS.get((self.name or "", args[0]), args[0])
        if not ctx.resilient_parsing and not name.startswith("-") and name not in self.commands:
            raise other_command(args, ctx.command_path, list(self.commands))
        return super().resolve_command(ctx, [name, *args[1:]])

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, in panels or plain."""
        _write_help(self, typer.core.TyperGroup, ctx, formatter)


def add_command(group: typer.Typer, name: str, *examples: str) -> Callable[[_Function], _Function]:
    """Return a decorator that makes a function a command of a group, with examples at the end of its help."""
    return group.command(name, cls=Command, epilog=epilog(*examples))


def command_group(name: str, help: str, *examples: str) -> typer.Typer:
    """Create a group of commands that is itself a command of the program."""
    return typer.Typer(
        name=name,
        cls=Group,
        help=_joined(help),
        no_args_is_help=True,
        add_completion=False,
        context_settings=CONTEXT_SETTINGS,
        epilog=epilog(*examples),
    )
