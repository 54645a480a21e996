"""The grammar of a call that has to come: of one of some functions, with arguments that fit its schema."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from metal_gen.config.constraints.settings import ANY_TOOL
from metal_gen.constraints.constraint import JSON_OPTIONS, quoted
from metal_gen.errors import UsageError

# A text in the XML form; its end tag cannot be a part of it.
_TEXT_RULE = "/(?s:.*)/"


def tool_choice_grammar(tools: Sequence[Mapping[str, Any]], choice: str, *, is_xml: bool) -> str:
    """Return the Lark grammar of one call.

    Args:
        tools: The functions, each within a tool.
        choice: `required`, or the name of the function to call.
        is_xml: Whether the chat template writes calls as XML.

    Raises:
        UsageError: There is no function of this name.
    """
    functions = [tool["function"] for tool in tools if choice in (ANY_TOOL, tool["function"]["name"])]
    if not functions:
        names = ", ".join(tool["function"]["name"] for tool in tools)
        raise UsageError(f"there is no function {choice} among the tools", f"there are {names}")
    rules = _xml_rules(functions) if is_xml else _json_rules(functions)
    return "\n".join(['start: <tool_call> "\\n" call "\\n" </tool_call>', *rules]) + "\n"


def _json_rules(functions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "call: " + " | ".join(f"call_{place}" for place in range(len(functions)))
    for place, function in enumerate(functions):
        name = quoted('{"name":' + json.dumps(function["name"]) + ',"arguments":')
        yield f'call_{place}: {name} arguments_{place} "}}"'
        yield f"arguments_{place}: {_json_rule(_parameters(function))}"


def _xml_rules(functions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield "call: " + " | ".join(f"call_{place}" for place in range(len(functions)))
    for place, function in enumerate(functions):
        parameters = _parameters(function)
        required = parameters.get("required", [])
        names, rules = [], []
        for number, (name, schema) in enumerate(parameters.get("properties", {}).items()):
            _require_writable(name, function["name"])
            rule = f"value_{place}_{number}"
            begin, end = quoted(f"<parameter={name}>\n"), quoted("\n</parameter>\n")
            is_text = schema.get("type") == "string"
            texts = schema.get("enum", [schema["const"]] if "const" in schema else None)
            if is_text and texts is None:
                # The parser reads a text up to the first end tag, too, whatever its pattern.
                rules.append(f"{rule}[suffix={quoted('</parameter>')}]: {_TEXT_RULE}")
                part = f"{begin} {rule} {quoted(chr(10))}"
            elif is_text:
                rules.append(f"{rule}: " + " | ".join(quoted(str(text)) for text in texts))
                part = f"{begin} {rule} {end}"
            else:
                rules.append(f"{rule}: {_json_rule(schema)}")
                part = f"{begin} {rule} {end}"
            names.append(part if name in required else f"({part})?")
        yield f"call_{place}: " + " ".join(
            [quoted(f"<function={function['name']}>\n"), *names, quoted("</function>")]
        )
        yield from rules


def _require_writable(name: str, function: str) -> None:
    """Refuse the name of a parameter that would end within its tag."""
    if not name or ">" in name or "\n" in name:
        raise UsageError(
            f"tool_choice cannot be kept to: a call in XML cannot name the parameter {name!r} of {function}",
            "rename it, or leave tool_choice out",
        )


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", **function.get("parameters", {})}


def _json_rule(schema: Mapping[str, Any]) -> str:
    return "%json " + json.dumps({**schema, "x-guidance": JSON_OPTIONS}, ensure_ascii=False)
