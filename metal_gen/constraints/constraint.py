"""A constraint on a text, and the grammar that the library makes of it."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from metal_gen.constraints.library import llguidance
from metal_gen.errors import UsageError
from metal_gen.excerpt import excerpt

# Compact, so that white space cannot continue forever. Unsupported keywords are errors.
JSON_OPTIONS = {"whitespace_flexible": False, "lenient": False, "coerce_one_of": False}
SUPPORTED_HINT = "`metal-gen help structured-output` lists what a schema can have"
LONGEST_REASON = 300
STRINGS_EXCLUDED = "patterns, formats, lengths or values of a string exclude one another"
TOO_MUCH = "asks for more at once than the library can follow"
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_KEYWORDS = re.compile(r"^Unimplemented keys: (\[.*\])")
_FORMAT = re.compile(r"^Unknown format: (.*)")
# An expression of the library follows, which has thousands of characters.
_EMPTY = re.compile(r"^Unsatisfiable schema: Regex is empty")
# Only the beginning of a message: what follows may quote the constraint.
_LIMIT = re.compile(
    "(?:(?:parser|lexer) error: )?"
    "(?:current row has|too many|fuel exhausted|schema too large|dnf too large|grammar size|initial lexer)",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"^Resource '(.*)' is not present")


@dataclass(frozen=True)
class Constraint:
    """The form that a text must have.

    Args:
        kind: `schema`, `regex`, `choice` or `grammar`; or `tool_choice`, for a call of a function.
        value: A schema as JSON, a regular expression, the texts to choose from, or a Lark grammar.
    """

    kind: str
    value: str | tuple[str, ...]

    @classmethod
    def schema(cls, schema: Mapping[str, Any] | str) -> "Constraint":
        """Answer with JSON that fits a JSON Schema, which is given as an object or as JSON."""
        return cls("schema", schema if isinstance(schema, str) else json.dumps(schema))

    @classmethod
    def regex(cls, pattern: str) -> "Constraint":
        """Answer with a text that matches a regular expression."""
        return cls("regex", pattern)

    @classmethod
    def choice(cls, *texts: str) -> "Constraint":
        """Answer with one of some texts."""
        return cls("choice", texts)

    @classmethod
    def lark(cls, grammar: str) -> "Constraint":
        """Answer with a text that a Lark grammar accepts."""
        return cls("grammar", grammar)

    @property
    def library_grammar(self) -> str:
        """The grammar in the library's own form, not yet checked.

        Raises:
            UsageError: The library is not installed.
            ValueError: The value is not valid as the setting of this kind.
        """
        matcher = llguidance().LLMatcher
        if self.kind == "schema":
            return str(matcher.grammar_from_json_schema(self.value, overrides=JSON_OPTIONS))
        if self.kind == "regex":
            return str(matcher.grammar_from_regex(self.value))
        if self.kind in ("grammar", "tool_choice"):
            return str(matcher.grammar_from_lark(self.value))
        return str(matcher.grammar_from_lark("start: " + " | ".join(map(quoted, self.value))))

    def refusal(self, message: str) -> UsageError:
        """Return the error for what the library says."""
        if is_limit(message):
            return UsageError(f"the {self.kind} {TOO_MUCH}", self.smaller_hint)
        return _REFUSALS[self.kind](message)

    @property
    def smaller_hint(self) -> str:
        """What helps at a limit of the library."""
        return f"simplify the {self.kind}, or divide it into several"


def is_limit(message: str) -> bool:
    """Return whether the library says that it has reached one of its limits."""
    return bool(_LIMIT.match(message))


def quoted(text: str) -> str:
    """Write a text as a string of Lark."""
    written = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", written)


def _refuse_schema(message: str) -> UsageError:
    if found := _KEYWORDS.match(message):
        names = [str(name) for name in json.loads(found[1])]
        what = f"keyword {names[0]}" if len(names) == 1 else f"keywords {', '.join(names)}"
        verb = "is" if len(names) == 1 else "are"
        return UsageError(f"the schema has the {excerpt(what)}, which {verb} not supported", SUPPORTED_HINT)
    if found := _FORMAT.match(message):
        return UsageError(
            f"the schema has the format {excerpt(found[1])}, which is not supported", SUPPORTED_HINT
        )
    if found := _REFERENCE.match(message):
        return UsageError(
            f"the schema refers to {excerpt(found[1])}, which is not a part of it",
            "copy what it refers to under $defs, and refer to that with #/$defs/NAME",
        )
    if message.startswith("oneOf"):
        return UsageError(
            "the schema has the keyword oneOf with parts that overlap, which is not supported",
            "write anyOf, or give each part a property with a const of its own",
        )
    if message.startswith("Unsatisfiable schema"):
        reason = STRINGS_EXCLUDED if _EMPTY.match(message) else _reason(message)
        return UsageError(f"no document fits the schema: {reason}", "correct the schema")
    return UsageError(f"the schema cannot be used: {_reason(message)}", SUPPORTED_HINT)


def _refuse_regex(message: str) -> UsageError:
    return UsageError(
        f"the regex cannot be used: {_reason(message)}",
        "it has the syntax of Rust's regex crate, without look-around and back-references",
    )


def _refuse_grammar(message: str) -> UsageError:
    return UsageError(
        f"the grammar cannot be used: {_reason(message)}",
        "`metal-gen help structured-output` says what a grammar looks like",
    )


def _refuse_tools(message: str) -> UsageError:
    return UsageError(f"the parameters of a function cannot be used: {_reason(message)}", SUPPORTED_HINT)


def _refuse_choice(message: str) -> UsageError:
    return UsageError(f"the choices cannot be used: {_reason(message)}", "give fewer or shorter ones")


_REFUSALS: dict[str, Callable[[str], UsageError]] = {
    "schema": _refuse_schema,
    "regex": _refuse_regex,
    "grammar": _refuse_grammar,
    "tool_choice": _refuse_tools,
    "choice": _refuse_choice,
}


def _reason(message: str) -> str:
    """Return the library's message as one line: the line that names the error."""
    text = message.split("<state>")[0]
    found = re.search(r"^error: (.*)$", text, re.MULTILINE) or re.search(r"lookarounds? not supported", text)
    if found:
        return excerpt(found[found.lastindex or 0], LONGEST_REASON)
    line = next((line.strip() for line in text.splitlines() if line.strip()), "unknown reason")
    return excerpt(line.removeprefix("Unsatisfiable schema: "), LONGEST_REASON)
