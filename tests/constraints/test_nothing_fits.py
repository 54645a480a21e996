"""Constraints of which nothing fits at a place that a text must come to are refused before it begins."""

import pytest
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.constraints.constraint import Constraint
from metal_gen.errors import UsageError

NO_MULTIPLE = {"type": "integer", "minimum": 1, "maximum": 4, "multipleOf": 5}
# The library looks for a multiple, and does not ask whether it is an integer.
NO_WHOLE_MULTIPLE = {"type": "integer", "minimum": 1, "maximum": 6, "multipleOf": 0.7}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Checkpoint(write_text_checkpoint(tmp_path_factory.mktemp("checkpoint")))


def with_value(value, **others):
    """A schema of an object that must have a value, which fits one of its definitions."""
    return {"type": "object", "properties": {"v": value}, "required": ["v"], "$defs": others}


@pytest.mark.parametrize("number", [NO_MULTIPLE, NO_WHOLE_MULTIPLE], ids=["none", "none that is whole"])
@pytest.mark.parametrize(
    "behind",
    [
        lambda number: number,
        lambda number: {"$ref": "#/$defs/a", "$defs": {"a": number}},
        lambda number: {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": number}},
        lambda number: with_value(number),
        lambda number: with_value({"$ref": "#/$defs/a"}, a=number),
        lambda number: with_value({"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/a"}}, a=number),
        lambda number: {
            "$ref": "#/$defs/node",
            "$defs": {
                "number": number,
                "node": {
                    "type": "object",
                    "properties": {"v": {"$ref": "#/$defs/number"}, "next": {"$ref": "#/$defs/node"}},
                    "required": ["v"],
                },
            },
        },
    ],
    ids=["alone", "ref", "ref to ref", "value", "value by ref", "item by ref", "recursive"],
)
def test_a_range_that_has_no_multiple_behind_any_reference(checkpoint, behind, number):
    with pytest.raises(UsageError, match=r"no (document|text) fits the schema"):
        checkpoint.token_table.require_usable(Constraint.schema(behind(number)))
    possible = {**number, "maximum": 7}
    checkpoint.token_table.require_usable(Constraint.schema(behind(possible)))


def test_a_range_and_a_multiple_on_both_sides_of_a_reference(checkpoint):
    schema = {"$ref": "#/$defs/a", "multipleOf": 5, "$defs": {"a": {"type": "integer", "minimum": 1}}}
    checkpoint.token_table.require_usable(Constraint.schema(schema))
    with pytest.raises(UsageError, match="no document fits the schema"):
        checkpoint.token_table.require_usable(Constraint.schema({**schema, "maximum": 4}))


def test_what_cannot_follow_what_must_come_first(checkpoint):
    constraint = Constraint.lark('start: "ab" /[^\\x00-\\u{10FFFF}]/')
    with pytest.raises(UsageError, match="no text fits the grammar"):
        checkpoint.token_table.require_usable(constraint)
