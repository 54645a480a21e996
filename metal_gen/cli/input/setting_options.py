"""Defines a command-line option per setting, and merges the options with files and variables."""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from metal_gen.cli.completion import completion_of
from metal_gen.cli.terminal.console import Console
from metal_gen.config.adapters import Adapters
from metal_gen.config.checks import Biases, Flag, Texts
from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.sources import override_with_flags, resolve_settings, unknown_variables
from metal_gen.config.template_args import TemplateArgs
from metal_gen.errors import UsageError

SAMPLING, STOPPING, CACHE, OUTPUT = "Sampling", "Stopping", "Memory", "Output"
CONSTRAINT, SPECULATION = "Constraints", "Speculation"
# Settings of every command that generates texts.
SAMPLING_SETTINGS = (
    *("temperature", "top_k", "top_p", "min_p"),
    *("repetition_penalty", "repetition_window", "presence_penalty", "frequency_penalty"),
    *("logit_bias", "ban_token", "seed"),
)
# Values that agree with `--greedy`, or have no effect with it; None is a filter that is off.
GREEDY_VALUES: dict[str, tuple[float | None, ...]] = {
    "temperature": (0,),
    "top_k": (1, None),
    "top_p": (1,),
    "min_p": (0,),
}
# Settings without effect unless another one is set, where a command has both options.
NEEDED = {"schema_indent": "schema", "prefix_cache_dir": "prefix_cache"}
CONSTRAINT_SETTINGS = ("schema", "regex", "choice", "grammar")
SPECULATION_SETTINGS = ("speculate", "draft_model", "draft_tokens")
STOPPING_SETTINGS = (
    *("max_tokens", "thinking_budget", "stop", "stop_token"),
    *("min_tokens", "ignore_eos", "break_loops"),
)

Command = TypeVar("Command", bound=Callable[..., None])


@dataclass(frozen=True)
class _Form:
    """The form of a setting's option in the help: its metavar, its panel and a short name."""

    metavar: str = ""
    panel: str | None = None
    short: str | None = None


_FORMS = {
    "model": _Form("MODEL", short="-m"),
    "adapter": _Form("FOLDER[=SCALE]"),
    "system": _Form("TEXT"),
    "raw": _Form(),
    "thinking": _Form(),
    "prefill": _Form("TEXT"),
    "template_arg": _Form("NAME=VALUE"),
    "compile": _Form("auto|on|off"),
    "blas": _Form("LIBRARY"),
    "speculate": _Form("auto|off|lookup|mtp|draft", SPECULATION),
    "draft_model": _Form("MODEL", SPECULATION),
    "draft_tokens": _Form("N", SPECULATION),
    "markdown": _Form(panel=OUTPUT),
    "hide_thinking": _Form(panel=OUTPUT),
    "temperature": _Form("T", SAMPLING),
    "top_k": _Form("K", SAMPLING),
    "top_p": _Form("P", SAMPLING),
    "min_p": _Form("P", SAMPLING),
    "repetition_penalty": _Form("R", SAMPLING),
    "repetition_window": _Form("N", SAMPLING),
    "presence_penalty": _Form("A", SAMPLING),
    "frequency_penalty": _Form("A", SAMPLING),
    "logit_bias": _Form("TOKEN=BIAS", SAMPLING),
    "ban_token": _Form("TOKEN", SAMPLING),
    "seed": _Form("S", SAMPLING),
    "samples": _Form("N", SAMPLING),
    "logprobs": _Form("K", SAMPLING),
    "max_tokens": _Form("N", STOPPING, "-n"),
    "min_tokens": _Form("N", STOPPING),
    "stop": _Form("TEXT", STOPPING),
    "stop_token": _Form("TOKEN", STOPPING),
    "ignore_eos": _Form(panel=STOPPING),
    "break_loops": _Form(panel=STOPPING),
    "thinking_budget": _Form("N", STOPPING),
    "schema": _Form("FILE|JSON|FIELDS", CONSTRAINT),
    "regex": _Form("REGEX", CONSTRAINT),
    "choice": _Form("TEXT", CONSTRAINT),
    "grammar": _Form("FILE", CONSTRAINT),
    "schema_indent": _Form("N", CONSTRAINT),
    "tools": _Form("FILE", CONSTRAINT),
    "tool_choice": _Form("NAME", CONSTRAINT),
    "max_seq_len": _Form("N", CACHE),
    "batch_size": _Form("N", CACHE),
    "cache_dtype": _Form("DTYPE", CACHE),
    "model_dtype": _Form("DTYPE", CACHE),
    "quantize": _Form("BITS", CACHE),
    "rope_scaling": _Form("JSON", CACHE),
    "chunk_size": _Form("N", CACHE),
    "memory_limit_bytes": _Form("SIZE", CACHE),
    "prefix_cache": _Form(panel=CACHE),
    "prefix_file": _Form("FILE"),
    "prefix_cache_dir": _Form("FOLDER", CACHE),
}


_CONFIG = Annotated[
    str | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Read settings from this TOML file too",
        show_default="your own file alone",
    ),
]
_GREEDY = Annotated[
    bool | None,
    typer.Option("--greedy", help="Always take the most probable token", rich_help_panel=SAMPLING),
]


def with_settings(*names: str) -> Callable[[Command], Command]:
    """Add the options of these settings, and `--config`, to a command in place of its `**settings_given`.

    Their values are in the context's parameters, for `settings_in_force`. The temperature adds `--greedy`
    too.
    """

    def add(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        annotations = {"config": _CONFIG, **{name: _annotation(name) for name in names}}
        if "temperature" in names:
            annotations["greedy"] = _GREEDY
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in annotations.items()
        ]
        # Typer creates its options from the signature.
        command.__signature__ = signature.replace(parameters=[*own, *options])  # type: ignore[attr-defined]
        return command

    return add


def _annotation(name: str) -> Any:
    info, form = SETTINGS[name], _FORMS[name]
    kind: Any = str | None
    flag, help = info.flag, info.help
    if isinstance(info.check, Flag):
        kind, flag = bool | None, f"{flag}/--no-{flag.removeprefix('--')}"
    elif isinstance(info.check, Texts | Biases | Adapters | TemplateArgs):
        kind, help = list[str] | None, f"{info.help}; can be repeated"
    option = typer.Option(
        *filter(None, [flag, form.short]),
        metavar=form.metavar or None,
        help=help,
        rich_help_panel=form.panel,
        show_default=info.shown_default,
        autocompletion=completion_of(name),
    )
    return Annotated[kind, option]


QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only", rich_help_panel=OUTPUT)]
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON, for programs", rich_help_panel=OUTPUT)]
VerboseOption = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        metavar="",
        help="Print what is set and where it comes from; -vv prints all settings",
        show_default="off",
        rich_help_panel=OUTPUT,
    ),
]


def settings_in_force(parameters: Mapping[str, Any]) -> Settings:
    """Merge a command's options with files and variables, and report unknown variables.

    Args:
        parameters: The command's parameters by name, including those added by `with_settings`.

    Raises:
        UsageError: A value is out of range, contradicts `--greedy`, or needs another one.
        ConfigError: A file or a variable is invalid.
    """
    flags = {name: value for name, value in parameters.items() if name in SETTINGS}
    if re.fullmatch(r"[0-9]{1,9}", model := flags.get("model") or "") and not Path(model).exists():
        raise UsageError(
            f"{model} is not a model, which -m and --model name",
            f"-n {model} sets the number of tokens (-m in mlx_lm)",
        )
    config = parameters["config"]
    _say_unknown_variables(Console(quiet=parameters.get("quiet", False)))
    base = resolve_settings(config_file=None if config is None else Path(config), environ=os.environ)
    settings = override_with_flags(base, flags)
    for name, needed in NEEDED.items():
        if flags.get(name) is not None and needed in flags and not getattr(settings, needed):
            what = f"{SETTINGS[name].flag} has no effect without {SETTINGS[needed].flag}"
            raise UsageError(what, "give both, or leave it out")
    if not parameters.get("greedy"):
        return settings
    for name, agreeing in GREEDY_VALUES.items():
        if flags[name] is not None and getattr(settings, name) not in agreeing:
            raise UsageError(
                f"--greedy contradicts {SETTINGS[name].flag} {flags[name]}", "leave one of them out"
            )
    return settings.override({"temperature": 0.0}, "--greedy")


def _say_unknown_variables(console: Console) -> None:
    for name, near in unknown_variables(os.environ).items():
        guess = f"; did you mean {near}?" if near else ""
        console.note(f"unknown variable {name} (ignored){guess}")


def is_given(value: object) -> bool:
    """Return whether an option that is no setting was given; a switch that was not is False."""
    return value is not None and value is not False and value != ""


def flag_of(name: str) -> str:
    """Return the flag of a parameter."""
    return f"--{name.replace('_', '-')}"


def given_arguments(parameters: Mapping[str, Any]) -> list[str]:
    """Return the options that were given, as arguments for another process."""
    arguments = ["--greedy"] if parameters["greedy"] else []
    if parameters["config"] is not None:
        arguments += ["--config", str(parameters["config"])]
    for name, value in parameters.items():
        if name in SETTINGS:
            texts = [value] if isinstance(value, str) else value or ()
            arguments += [f"{SETTINGS[name].flag}={text}" for text in texts]
    return arguments
