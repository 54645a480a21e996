"""`--escape`: replaces backslash escapes in the text of options."""

import re
from collections.abc import Mapping
from typing import Any

from metal_gen.errors import UsageError

OPTIONS = ("prompt", "system", "prefill", "stop")
CHARACTERS = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}
ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.|$)", re.DOTALL)
SURROGATES = range(0xD800, 0xE000)
CODES = range(0x110000)


def unescape_options(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a command's parameters with the escapes in its texts replaced.

    Raises:
        UsageError: None of these options is given, or an escape is invalid.
    """
    changed: dict[str, Any] = {}
    for name in OPTIONS:
        given = parameters[name]
        if isinstance(given, str):
            changed[name] = unescape(f"--{name}", given)
        elif given:
            changed[name] = [unescape(f"--{name}", text) for text in given]
    if not changed:
        raise UsageError(
            "--escape has no effect: it applies to --prompt, --system, --prefill and --stop", "leave it out"
        )
    return {**parameters, **changed}


def unescape(option: str, text: str) -> str:
    r"""Replace `\n`, `\t`, `\r`, `\\`, `\"`, `\'`, `\uXXXX` and `\UXXXXXXXX`.

    Raises:
        UsageError: A backslash is followed by anything else.
    """

    def character(match: re.Match[str]) -> str:
        name = match[1]
        if name in CHARACTERS:
            return CHARACTERS[name]
        code = int(name[1:], 16) if len(name) > 1 else -1
        if code in CODES and code not in SURROGATES:
            return chr(code)
        raise UsageError(
            f"unknown escape in {option}: {match[0]}",
            r"there are \n, \t, \r, \", \', \uXXXX and \UXXXXXXXX; \\ is a backslash",
        )

    return ESCAPE.sub(character, text)
