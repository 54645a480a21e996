"""Predicts where a chat template would make a large value from a small one, and refuses it beforehand."""

import json
import re
from collections.abc import Callable
from typing import Any

from jinja2 import pass_environment, pass_eval_context
from jinja2.filters import FILTERS
from jinja2.sandbox import SandboxedEnvironment, SandboxedEscapeFormatter, SandboxedFormatter
from markupsafe import Markup

from metal_gen.text.template.limits import PLACE_BYTES, VALUE_BYTES, Allowance, TemplateLimitError

# A conversion of `%` with a harmless width.
PLAIN_CONVERSION = re.compile(r"%(\(\w*\))?[-#0 +]*\d{0,4}(\.\d{0,4})?[a-zA-Z%]")
WIDE = re.compile(r"\d{5}")
MOST_INDENT, MOST_PLACES = 100, 100


def foresee_operator(operator: str, left: Any, right: Any, allowance: Allowance) -> None:
    """Refuse an operation `*`, `**` or `%` whose result would be too large.

    Raises:
        TemplateLimitError: The result would be too large.
    """
    if operator == "%" and isinstance(left, str):
        foresee_percent(left, right, allowance)
    elif operator == "*":
        for sequence, times in ((left, right), (right, left)):
            if isinstance(sequence, str | list | tuple) and isinstance(times, int):
                each = 1 if isinstance(sequence, str) else PLACE_BYTES
                allowance.reserve(each * len(sequence) * times)
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        allowance.require_digits(left.bit_length() * right)


def foresee_percent(text: str, values: Any, allowance: Allowance) -> None:
    """Refuse `text % values` if it is too large. Each conversion may take all values, or set a width."""
    if "%" in PLAIN_CONVERSION.sub("", text):
        raise TemplateLimitError("it formats a text in an unsupported way")
    allowance.reserve(len(text) + text.count("%") * (10**4 + allowance.weigh(values)))


def foresee_method(text: str, name: str, args: tuple[Any, ...], allowance: Allowance) -> tuple[Any, ...]:
    """Refuse a call of a text's method if its result is too large. Return the arguments to call it with."""
    if name == "replace":
        _foresee_replacement(text, *args[:2], allowance=allowance)
    elif name == "join" and len(args) == 1:
        return (_foresee_join(args[0], text, allowance),)
    elif name in ("split", "rsplit", "splitlines"):
        marks = text.count(args[0]) if args and isinstance(args[0], str) and args[0] else len(text) // 2
        allowance.reserve(VALUE_BYTES * marks)
    return args


def _foresee_replacement(text: str, old: object = None, new: object = None, *, allowance: Allowance) -> None:
    if isinstance(old, str) and isinstance(new, str):
        allowance.reserve(len(text) + text.count(old) * max(0, len(new) - len(old)))


def _foresee_join(values: Any, mark: str, allowance: Allowance) -> list[Any]:
    allowance.reserve(VALUE_BYTES * len(values) if isinstance(values, str) else 0)
    listed = list(values)
    allowance.reserve(len(listed) * len(mark) + allowance.weigh(listed))
    return listed


@pass_eval_context
def _replace(context: Any, s: Any, old: Any, new: Any, count: Any = None) -> Any:
    _foresee_replacement(str(s), str(old), str(new), allowance=context.environment.allowance)
    return FILTERS["replace"](context, s, old, new, count)


@pass_eval_context
def _join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
    values = _foresee_join(value, str(d), context.environment.allowance)
    return FILTERS["join"](context, values, d, attribute)


@pass_environment
def _indent(environment: Any, s: Any, width: Any = 4, first: bool = False, blank: bool = False) -> Any:
    text = str(s)
    space = len(width) if isinstance(width, str) else width
    environment.allowance.reserve(len(text) + (len(text.splitlines()) + 1) * space)
    return FILTERS["indent"](s, width, first, blank)


@pass_environment
def _format(environment: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    foresee_percent(str(value), (args, kwargs), environment.allowance)
    return FILTERS["format"](value, *args, **kwargs)


@pass_environment
def _sum(environment: Any, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, int | float):
        raise TemplateLimitError("it adds up values that are not numbers")
    return FILTERS["sum"](environment, iterable, attribute, start)


def _round(value: Any, precision: Any = 0, method: Any = "common") -> Any:
    if abs(precision) > MOST_PLACES:
        raise TemplateLimitError(f"it rounds to more than {MOST_PLACES} places")
    return FILTERS["round"](value, precision, method)


@pass_environment
def _to_json(
    environment: Any,
    x: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Encode as JSON without Jinja's escapes of HTML characters, which a prompt must not have.

    Names and order of the arguments are those of transformers' filter.
    """
    lengths = [indent if isinstance(indent, int) else len(indent or ""), *map(len, separators or ())]
    if max(lengths) > MOST_INDENT:
        raise TemplateLimitError(f"it writes JSON with more than {MOST_INDENT} characters between values")
    encoder = json.JSONEncoder(
        ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
    parts = []
    for part in encoder.iterencode(x):
        environment.allowance.charge(len(part))
        parts.append(part)
    return "".join(parts)


# Replacements for Jinja's own filters.
CAREFUL_FILTERS: dict[str, Callable[..., Any]] = {
    "replace": _replace,
    "join": _join,
    "indent": _indent,
    "format": _format,
    "sum": _sum,
    "round": _round,
    "tojson": _to_json,
}


class _CarefulFormatter(SandboxedFormatter):
    """`str.format` that checks each piece."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        """Refuse a width that would make a text of any length."""
        if WIDE.search(format_spec):
            raise TemplateLimitError("it formats a text in an unsupported way")
        allowance: Allowance = self._env.allowance  # type: ignore[attr-defined]
        return allowance.take(super().format_field(value, format_spec))


class _CarefulEscapeFormatter(_CarefulFormatter, SandboxedEscapeFormatter):
    """A careful formatter for a text that is marked as safe."""


def formatter_for(environment: SandboxedEnvironment, text: str) -> SandboxedFormatter:
    """Return the formatter for a text, in an environment that has an `allowance`."""
    if isinstance(text, Markup):
        return _CarefulEscapeFormatter(environment, escape=text.escape)
    return _CarefulFormatter(environment)
