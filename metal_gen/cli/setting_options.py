"""Settings as command-line options: one per setting, and how they are laid over files and variables."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.sources import override_with_flags, resolve_settings
from metal_gen.errors import UsageError

SAMPLING, STOPPING, CACHE, OUTPUT = "Sampling", "Stopping", "Memory", "Output"


def setting_option(name: str, metavar: str, panel: str | None = None, *more: str) -> typer.models.OptionInfo:
    """The option of a setting; `more` are other names for it, such as `-m`."""
    info = SETTINGS[name]
    option: typer.models.OptionInfo = typer.Option(
        info.flag, *more, metavar=metavar, help=info.help, rich_help_panel=panel
    )
    return option


ConfigOption = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="TOML file of settings.")]
GreedyOption = Annotated[
    bool, typer.Option("--greedy", help="Always take the most probable token.", rich_help_panel=SAMPLING)
]
QuietOption = Annotated[
    bool, typer.Option("-q", "--quiet", help="Say nothing but errors.", rich_help_panel=OUTPUT)
]
VerboseOption = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        metavar="",
        help="Say what is in force.",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]


def settings_in_force(parameters: Mapping[str, Any]) -> Settings:
    """Lay a command's options over the files and variables.

    Args:
        parameters: The command's, by name: those that are settings, `config` and `greedy`.

    Raises:
        UsageError: A value is out of its range, or contradicts `--greedy`; ConfigError where a file
            or a variable is at fault.
    """
    flags = {name: value for name, value in parameters.items() if name in SETTINGS}
    config = parameters["config"]
    base = resolve_settings(config_file=None if config is None else Path(config), environ=os.environ)
    settings = override_with_flags(base, flags)
    if not parameters["greedy"]:
        return settings
    for name in ("temperature", "top_k", "top_p", "min_p"):
        if flags[name] is not None:
            raise UsageError(
                f"--greedy contradicts {SETTINGS[name].flag} {flags[name]}", "leave one of them out"
            )
    return settings.override({"temperature": 0.0}, "--greedy")


def given_arguments(parameters: Mapping[str, Any]) -> list[str]:
    """The options that were given, to be given to another process."""
    arguments = ["--greedy"] if parameters["greedy"] else []
    if parameters["config"] is not None:
        arguments += ["--config", str(parameters["config"])]
    for name, value in parameters.items():
        if name in SETTINGS:
            texts = [value] if isinstance(value, str) else value or ()
            arguments += [f"{SETTINGS[name].flag}={text}" for text in texts]
    return arguments
