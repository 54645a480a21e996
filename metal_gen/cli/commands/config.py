"""`metal-gen config`: shows the settings in force, and manages the user's settings file."""

import os
from pathlib import Path
from typing import Annotated

import typer

from metal_gen.cli.command_help import add_command, command_group
from metal_gen.cli.input.setting_options import JsonOption, settings_in_force, with_settings
from metal_gen.cli.output.output_file import OutputFile
from metal_gen.cli.terminal.console import Console
from metal_gen.config.sources import is_there, read_toml, user_config_file
from metal_gen.errors import ConfigError, UsageError

config = command_group(
    "config",
    """Set your model once, and other defaults: show, write and check settings files.

    To set your model for every command, run `metal-gen config init` and write it into the file under
    [model], or set METAL_GEN_MODEL in your shell's startup file.""",
    "metal-gen config show",
    "metal-gen config init",
)

OptionalFile = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="Name a TOML file", show_default="your own"),
]


@add_command(
    config, "show", "metal-gen config show", "metal-gen config show --config configs/low-memory.toml --json"
)
@with_settings()
def show(context: typer.Context, json: JsonOption = False, **settings_given: object) -> None:
    """Show every setting, its value, and where the value comes from.

    What is not set depends on the model and the machine; `metal-gen generate -vv` shows the values in use.
    """
    from metal_gen.cli.output.settings_report import settings_json, settings_table
    from metal_gen.cli.terminal.tables import print_json, print_rendered

    console = Console()
    console.require_stdout()
    settings = settings_in_force(context.params)
    if json:
        print_json(settings_json(settings), console)
    else:
        print_rendered(lambda width: settings_table(settings, width), console)


@add_command(config, "path", "metal-gen config path", '"$EDITOR" "$(metal-gen config path)"')
def path() -> None:
    """Print the path of your settings file, whether it exists or not."""
    from metal_gen.cli.terminal.tables import print_path

    console = Console()
    console.require_stdout()
    print_path(_own_file(), console)


@add_command(config, "init", "metal-gen config init", "metal-gen config init job.toml --overwrite")
def init(
    file: OptionalFile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file")] = False,
) -> None:
    """Write a settings file that lists every setting in a comment, for you to change.

    To set your model once, remove the # in front of name under [model], and write the model there. Every
    command then uses it, unless --model names another.
    """
    from metal_gen.config.settings_file import commented_settings

    path = file or _own_file()
    try:
        if path.exists() and not overwrite:
            raise UsageError(f"the settings file {path} already exists", "--overwrite replaces it")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the folder of {path} cannot be created: {error.strerror}") from None
    output = OutputFile(path, "the settings file")
    try:
        output.write(commented_settings())
    finally:
        output.discard()
    Console().note(f"wrote {path}: every setting is in it, commented out; remove the # to use one")


@add_command(config, "check", "metal-gen config check", "metal-gen config check job.toml")
def check(file: OptionalFile = None) -> None:
    """Check a settings file; if it cannot be used, print the reason and exit with code 3."""
    path = file or _own_file()
    if file is None and not is_there(path):
        Console().note(
            f"there is no settings file {path}: defaults are used; metal-gen config init writes one"
        )
        return
    count = len(read_toml(path, is_own=path == user_config_file(os.environ)))
    Console().note(f"{path} is valid: it has {count} {'setting' if count == 1 else 'settings'}")


def _own_file() -> Path:
    path = user_config_file(os.environ)
    if path is None:
        raise ConfigError(
            "there is no place for a settings file: neither HOME nor XDG_CONFIG_HOME is set",
            "set one of them, or name a file",
        )
    return path
