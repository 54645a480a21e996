"""The command line's commands and their common options."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from shutil import get_terminal_size
from typing import Annotated, Any, Literal

import typer
import typer.core

from metal_gen import __version__

# Each is a function in the file of its name.
COMMANDS = ("generate", "chat", "batch", "bench")
# On a screen narrower than this, help in boxes would cut off the names of options.
NARROWEST_BOXES = 78


class _CommandsByName(Mapping[str, Any]):
    """The commands, each imported when it is asked for."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        alone = typer.Typer(
            add_completion=False, context_settings=CONTEXT_SETTINGS, rich_markup_mode=MARKUP_MODE
        )
        alone.command(name)(getattr(import_module(f"metal_gen.cli.{name}"), name))
        return typer.main.get_command(alone)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(typer.core.TyperGroup):
    """The program, which has these commands."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _CommandsByName()


COLUMNS = get_terminal_size().columns
IS_NARROW = COLUMNS < NARROWEST_BOXES
CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "terminal_width": COLUMNS if IS_NARROW else None}
MARKUP_MODE: Literal["rich"] | None = None if IS_NARROW else "rich"
app = typer.Typer(
    name="metal-gen",
    cls=_Group,
    no_args_is_help=True,
    rich_markup_mode=MARKUP_MODE,
    pretty_exceptions_enable=False,
    context_settings=CONTEXT_SETTINGS,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"metal-gen {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Stream text from Qwen checkpoints on MLX, in memory that is fixed before it starts."""
