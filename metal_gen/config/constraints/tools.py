"""The setting that tells a model which functions there are, as OpenAI's API and transformers take them."""

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from metal_gen.config.constraints.checks import Source, parse_schema, read_named_file

FUNCTION = "function"
_NAME = re.compile(r"[\w.-]{1,128}")


@dataclass(frozen=True)
class Tools(Source):
    """A list of functions, kept as JSON text."""

    topic: ClassVar[str] = "tool-calls"

    what: str = "a list of functions, each with a name and perhaps a description and parameters"

    def __call__(self, value: object) -> str:
        """Accept a list, or its JSON."""
        if isinstance(value, str):
            value = parse_schema(super().__call__(value))
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be {self}")
        if not value:
            raise ValueError("has no functions")
        names = [_name_of(tool) for tool in value]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"names the function {name} twice")
        try:
            written = json.dumps([_wrapped(tool) for tool in value], ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise ValueError("must be functions that can be written as JSON") from None
        return super().__call__(written)

    def from_text(self, text: str) -> str:
        """Read JSON, or else a file of this name."""
        return self(text if text.lstrip().startswith("[") else read_named_file(text))

    def from_file_value(self, value: object) -> str:
        """Accept a list of tables, or a text as an option does."""
        return self.from_text(value) if isinstance(value, str) else self(value)


def _wrapped(tool: Any) -> Any:
    """Return a function as OpenAI's API has it, within a tool."""
    return tool if FUNCTION in tool else {"type": FUNCTION, FUNCTION: tool}


def _name_of(tool: object) -> str:
    function = tool.get(FUNCTION, tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("has a function without a name of letters, digits, _, . and -")
    if not isinstance(function.get("parameters", {}), dict):  # type: ignore[union-attr]
        raise ValueError(f"has parameters of {name} that are not a JSON Schema")
    return name
