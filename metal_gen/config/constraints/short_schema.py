"""The short form of a JSON Schema, as in `llm --schema`: `name, age int, bio: a few words`."""

KINDS = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
# JSON Schema's own names mean the same.
_TYPES = {**KINDS, **{name: name for name in KINDS.values()}}


def expand_short_schema(text: str) -> dict[str, object]:
    """Return the schema of an object with these fields, all of them required and no others allowed.

    Fields are separated by commas, or by new lines if there are any. Each is a name, perhaps a type, and
    perhaps a description after a colon.

    Raises:
        ValueError: A field has no name, an unknown type, a type as its description, or a name that occurs
            twice.
    """
    parts = [part.strip() for part in text.split("\n" if "\n" in text.strip() else ",")]
    properties: dict[str, object] = {}
    for part in filter(None, parts):
        words, _, description = part.partition(":")
        name, *rest = words.split() or [""]
        kind = rest[0] if rest else "str"
        if name and len(rest) == 1 and kind not in _TYPES:
            raise ValueError(f"has the field {name} of the unknown type {kind}, not {', '.join(KINDS)}")
        if not name or len(rest) > 1:
            raise ValueError(f"has a field that is not NAME, or NAME with one of {', '.join(KINDS)}: {part}")
        if description.strip() in _TYPES:
            raise ValueError(f"has a type after a colon: write {name} {description.strip()}")
        if name in properties:
            raise ValueError(f"names the field {name} twice")
        described = {"description": description.strip()} if description.strip() else {}
        properties[name] = {"type": _TYPES[kind], **described}
    if not properties:
        raise ValueError("must not be empty")
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
