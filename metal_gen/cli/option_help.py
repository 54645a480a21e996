"""The help text of an option with its default."""

import copy
import re
from typing import Any

# Text that rich would interpret as a style tag.
TAG = re.compile(r"(\[[a-z#/@][^\[]*?\])")


def default_of(param: Any) -> str:
    """Return the default of an option or an argument, in words.

    Returns:
        An empty text for a required argument, and for an action such as `--version`.
    """
    if param.required or param.is_eager or not param.expose_value:
        return ""
    if isinstance(param.show_default, str):
        return param.show_default
    if getattr(param, "is_bool_flag", False):
        return "on" if param.default else "off"
    return "none" if param.default in (None, [], ()) else str(param.default)


def described(param: Any) -> str:
    """Return the help of an option with its default, in plain text."""
    default = default_of(param)
    help = (param.help or "").removesuffix(".")
    return f"{help} [default: {default}]" if default else help


def without_tags(text: str) -> str:
    """Escape a text so that rich interprets nothing in it as a style."""
    return TAG.sub(r"\\\1", text)


def with_default(param: Any) -> Any:
    """Return a copy of an option whose help includes its default, for typer's panels."""
    shown, default = copy.copy(param), default_of(param)
    shown.help, shown.show_default = without_tags((param.help or "").removesuffix(".")), False
    if default:
        shown.help += f" [dim]{without_tags(f'[default: {default}]')}[/dim]"
    return shown


def names_of(param: Any) -> str:
    """Return the names of an option, with a placeholder for its value."""
    if param.param_type_name == "argument":
        return str(param.human_readable_name)
    shorts = [name for name in param.opts if not name.startswith("--")]
    longs = [name for name in param.opts if name.startswith("--")]
    names = ", ".join([*shorts, *longs, *param.secondary_opts])
    takes_value = not param.is_flag and not param.count
    return f"{names} {param.metavar}" if takes_value and param.metavar else names
