"""The command line's commands and their common options."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer

from metal_gen import __version__
from metal_gen.cli.command_help import CONTEXT_SETTINGS, Group, add_command
from metal_gen.cli.examples import epilog

# Each command is a module in `commands`, which defines a command or command group of the same name. The value
# is its panel in the help.
COMMANDS = {
    "generate": "Text",
    "chat": "Text",
    "batch": "Text",
    "score": "Text",
    "rank": "Text",
    "models": "Models and memory",
    "plan": "Models and memory",
    "convert": "Models and memory",
    "cache": "Models and memory",
    "bench": "Models and memory",
    "config": "Settings and help",
    "completion": "Settings and help",
    "info": "Settings and help",
    "help": "Settings and help",
}


class _CommandsByName(Mapping[str, Any]):
    """The commands by name, each imported on first access."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        module = import_module(f"metal_gen.cli.commands.{name}")
        found = getattr(module, name)
        if not isinstance(found, typer.Typer):
            alone = typer.Typer(add_completion=False, context_settings=CONTEXT_SETTINGS)
            add_command(alone, name, *module.EXAMPLES)(found)
            found = alone
        command: Any = typer.main.get_command(found)
        command.rich_help_panel = COMMANDS[name]
        if getattr(module, "TAKES_ANY_OPTION", False):
            command.ignore_unknown_options = True
            command.params = [param for param in command.params if not getattr(param, "hidden", False)]
        return command

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Program(Group):
    """The top-level command group."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _CommandsByName()


app = typer.Typer(
    name="metal-gen",
    cls=_Program,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=CONTEXT_SETTINGS,
    epilog=epilog('metal-gen generate "Tell me a story about a fox."', "metal-gen help sampling"),
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"metal-gen {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", help="Print the version", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Stream text from Qwen models on MLX, in memory that is fixed before the run starts."""
