"""What the help of an option says: what it does, and its default."""

import copy
import re
from typing import Any

# What rich would take for a style.
TAG = re.compile(r"(\[[a-z#/@][^\[]*?\])")


def default_of(param: Any) -> str:
    """The default of an option or an argument, in words.

    Returns:
        Nothing for what must be given, and for what is done at once, as `--version` is.
    """
    if param.required or param.is_eager or not param.expose_value:
        return ""
    if isinstance(param.show_default, str):
        return param.show_default
    if getattr(param, "is_bool_flag", False):
        return "on" if param.default else "off"
    return "none" if param.default in (None, [], ()) else str(param.default)


def described(param: Any) -> str:
    """What an option does and its default, in plain text."""
    default = default_of(param)
    help = (param.help or "").removesuffix(".")
    return f"{help} [default: {default}]" if default else help


def with_default(param: Any) -> Any:
    """A copy of an option whose help names its default, for a panel of typer's."""
    shown, default = copy.copy(param), default_of(param)
    shown.help, shown.show_default = TAG.sub(r"\\\1", (param.help or "").removesuffix(".")), False
    if default:
        shown.help += " [dim]" + TAG.sub(r"\\\1", f"[default: {default}]") + "[/dim]"
    return shown


def names_of(param: Any) -> str:
    """How an option is written: its names, with what stands for its value."""
    if param.param_type_name == "argument":
        return str(param.human_readable_name)
    shorts = [name for name in param.opts if not name.startswith("--")]
    longs = [name for name in param.opts if name.startswith("--")]
    names = ", ".join([*shorts, *longs, *param.secondary_opts])
    takes_value = not param.is_flag and not param.count
    return f"{names} {param.metavar}" if takes_value and param.metavar else names
