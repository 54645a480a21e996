"""Schemas of many kinds, all of which a constraint can keep to, for `check_constraints.py` and its test."""

from typing import Any

Schema = dict[str, Any]


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _array(items: Schema, least: int = 0, most: int = 4) -> Schema:
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


SHORT: Schema = {"type": "string", "maxLength": 12}
DIGIT: Schema = {"type": "integer", "minimum": 0, "maximum": 9}

SCALARS: list[Schema] = [
    {"type": "boolean"},
    {"type": "null"},
    SHORT,
    {"type": "string", "minLength": 3, "maxLength": 8},
    {"type": "integer", "minimum": -20, "maximum": 300},
    {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 12},
    {"type": "integer", "minimum": 0, "maximum": 100, "multipleOf": 5},
    {"type": "number", "minimum": 0.5, "maximum": 2.5},
    {"type": "number", "exclusiveMinimum": -1, "exclusiveMaximum": 1},
    {"const": 5},
    {"const": {"a": [1, None, "x"]}},
    {"enum": ["red", "green", "blue"]},
    {"enum": [1, "1", None, True, [1], {"a": 1}]},
    {"type": ["boolean", "null"]},
    {"type": ["integer", "null"], "minimum": 1, "maximum": 5},
]

PATTERNS: list[Schema] = [
    {"type": "string", "pattern": "^[a-z]{2,6}$"},
    {"type": "string", "pattern": "^(\\([0-9]{3}\\))?[0-9]{3}-[0-9]{4}$"},
    {"type": "string", "pattern": "^[A-Z][a-z]* [A-Z][a-z]*$", "maxLength": 20},
    {"type": "string", "pattern": "^#[0-9a-f]{6}$"},
    {"type": "string", "pattern": "^v[0-9]+\\.[0-9]+$", "maxLength": 10},
    {"type": "string", "format": "date"},
    {"type": "string", "format": "time"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "format": "uuid"},
    {"type": "string", "format": "ipv4"},
    {"type": "string", "format": "ipv6"},
]

OBJECTS: list[Schema] = [
    _object(),
    _object(name=SHORT),
    _object(name=SHORT, age={"type": "integer", "minimum": 0, "maximum": 120}),
    _object(a=DIGIT, b={"type": "boolean"}, c={"type": "null"}, d=SHORT),
    {"type": "object", "properties": {"a": DIGIT, "b": SHORT}, "additionalProperties": False},
    {
        "type": "object",
        "properties": {"a": DIGIT, "b": SHORT},
        "required": ["b"],
        "additionalProperties": False,
    },
    {"type": "object", "additionalProperties": DIGIT, "maxProperties": 3},
    {"type": "object", "minProperties": 1, "maxProperties": 2, "additionalProperties": {"type": "boolean"}},
    {
        "type": "object",
        "patternProperties": {"^n[0-9]$": DIGIT},
        "additionalProperties": False,
        "maxProperties": 3,
    },
    _object(outer=_object(inner=_object(value=DIGIT))),
    _object(**{'quote"d': DIGIT, "back\\slash": DIGIT, "new\nline": DIGIT, "é😀": DIGIT}),
    _object(point=_object(x={"type": "number", "minimum": -1, "maximum": 1}, y=DIGIT), label=SHORT),
    _object(kind={"enum": ["cat", "dog"]}, tags=_array(SHORT, 1, 3)),
    _object(**{f"field_{number}": DIGIT for number in range(20)}),
]

ARRAYS: list[Schema] = [
    _array(DIGIT),
    _array(DIGIT, 2, 2),
    _array({"type": "boolean"}, 1, 6),
    _array(_array(DIGIT, 0, 3), 1, 3),
    _array(_object(x=DIGIT, y=DIGIT), 1, 2),
    _array({"enum": ["a", "b"]}, 3, 5),
    {"type": "array", "prefixItems": [DIGIT, SHORT, {"type": "boolean"}], "items": False, "minItems": 3},
    {"type": "array", "prefixItems": [SHORT], "items": DIGIT, "minItems": 1, "maxItems": 4},
    {"type": "array", "items": False},
    _array({"anyOf": [DIGIT, {"type": "null"}]}, 1, 5),
]

UNIONS: list[Schema] = [
    {"anyOf": [DIGIT, {"type": "boolean"}, {"enum": ["none"]}]},
    {"anyOf": [_object(a=DIGIT), _object(b=SHORT)]},
    {"oneOf": [{"type": "boolean"}, DIGIT]},
    {"oneOf": [_object(kind={"const": "a"}, a=DIGIT), _object(kind={"const": "b"}, b=SHORT)]},
    {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 8}]},
    {"allOf": [{"$ref": "#/$defs/digit"}, {"minimum": 5}], "$defs": {"digit": DIGIT}},
    {"$ref": "#/$defs/pair", "$defs": {"pair": _array({"$ref": "#/$defs/digit"}, 2, 2), "digit": DIGIT}},
    {
        "$ref": "#/$defs/tree",
        "$defs": {"tree": {"anyOf": [{"type": "null"}, _object(value=DIGIT, next={"$ref": "#/$defs/tree"})]}},
    },
    _object(
        answer={"anyOf": [{"type": "string", "maxLength": 10}, {"type": "null"}]}, sure={"type": "boolean"}
    ),
    _object(status={"const": "ok"}, result={"oneOf": [{"type": "null"}, _object(n=DIGIT)]}),
    {
        "definitions": {"d": DIGIT},
        "type": "object",
        "properties": {"a": {"$ref": "#/definitions/d"}},
        "required": ["a"],
        "additionalProperties": False,
    },
]

SCHEMAS: list[Schema] = [*SCALARS, *PATTERNS, *OBJECTS, *ARRAYS, *UNIONS]
