"""Recognizes values that are mixed up with options: one after a switch, or an option in place of one.

Switches here have values in other programs: `--verbose F` in mlx_lm, `--think=false` in ollama.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from metal_gen.cli.names_elsewhere import SAME, hints_of

# Where a command's arguments are kept in the metadata of its context.
ARGUMENTS = "metal_gen.arguments"
ON = ("true", "t", "yes", "y", "on", "1")
OFF = ("false", "f", "no", "n", "off", "0")


def hint_for_mixture(arguments: Sequence[str], command: Any, message: str = "") -> str:
    """Return what is wrong with a value of a switch, or with an option in place of a value; or nothing.

    Args:
        arguments: The words of the command line.
        command: The command that reads them.
        message: The error; the hint does not repeat it.
    """
    options = _options(command)
    names = {*options, *hints_of(command.name)}
    for word, next_word in pairwise([*arguments, ""]):
        name, equals, value = word.partition("=")
        if (param := options.get(name)) is None:
            continue
        if _is_switch(param):
            value = value if equals else next_word
            if equals or value.lower() in (*ON, *OFF) or (param.count and value.isdecimal()):
                instead = _instead(name, value, param, is_joined=bool(equals))
                problem = f"{name} takes no value"
                return instead if problem == message else f"{problem}: {instead}"
        elif not equals and next_word.partition("=")[0] in names:
            return f"{name} takes a value, and {next_word} is in its place: write {name} {_metavar(param)}"
    return ""


def missing_value(name: str, command: Any) -> str:
    """Return the hint for an option at the end of the command line without its value."""
    param = _options(command).get(name)
    return "" if param is None else f"write {name} {_metavar(param)}"


def _options(command: Any) -> dict[str, Any]:
    """Return the options of a command by each of their names, those of other programs included."""
    params = [param for param in command.params if param.param_type_name == "option" and not param.hidden]
    options = {name: param for param in params for name in (*param.opts, *param.secondary_opts)}
    by_name = {param.name: param for param in params}
    return {**{other: by_name[name] for other, name in SAME.items() if name in by_name}, **options}


def _is_switch(param: Any) -> bool:
    return bool(param.is_flag or param.count)


def _instead(name: str, value: str, param: Any, *, is_joined: bool) -> str:
    """Return what to write in place of a switch with a value, which may be joined to it by an equals sign."""
    others = param.opts if name in param.secondary_opts else param.secondary_opts
    if value.lower() in OFF:
        return f"{others[0]} is the opposite" if others else f"leave {'it' if is_joined else 'both'} out"
    return f"leave {'=' if is_joined else ''}{value} out"


def _metavar(param: Any) -> str:
    return str(param.metavar or "VALUE")
