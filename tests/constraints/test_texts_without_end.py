"""Constraints that ask for more than the library can follow, and what is said of them."""

import pytest
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.constraints import library
from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.matcher import GrammarMatcher
from metal_gen.errors import UsageError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Checkpoint(write_text_checkpoint(tmp_path_factory.mktemp("checkpoint")))


NULLS = {"type": "array", "items": {"type": "null"}}


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint.schema({"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}),
        Constraint.schema({**NULLS, "minItems": 100_000_000}),
        Constraint.lark('start: a\na: "x" a'),
        Constraint.lark('start: <think> a\na: "x" a'),
        Constraint.lark('start: "a"~100000000'),
    ],
    ids=range(5),
)
def test_constraints_that_no_text_fits_that_ends_soon(checkpoint, constraint):
    with pytest.raises(UsageError) as error:
        checkpoint.token_table.require_usable(constraint)
    assert error.value.message == f"no text that ends soon fits the {constraint.kind}"
    assert error.value.hint == "correct it, or make it smaller"


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint.schema({**NULLS, "minItems": 2_000}),
        Constraint.schema({"const": "ab" * 5_000}),
        Constraint.schema({"type": "object", "properties": {"a": {"$ref": "#"}}}),
        Constraint.lark('start: <think> "a"'),
        Constraint.lark('start: a\na: "x" a | "y"'),
    ],
    ids=range(5),
)
def test_constraints_with_a_text_that_ends(checkpoint, constraint):
    checkpoint.token_table.require_usable(constraint)


def test_a_word_of_the_constraint_is_no_limit_of_the_library(checkpoint):
    with pytest.raises(UsageError, match="unknown name"):
        checkpoint.token_table.require_usable(Constraint.lark("start: limit"))


def test_a_limit_of_the_library_is_said_as_such(checkpoint, monkeypatch):
    monkeypatch.setattr(library, "MOST_ITEMS_IN_ROW", 100)
    properties = {f"q{number}": {"type": "integer"} for number in range(100)}
    constraint = Constraint.schema({"type": "object", "properties": properties})
    matcher = GrammarMatcher(checkpoint.token_table, constraint)
    matcher.accept(ord("{"))
    assert matcher.error.message == (
        "the text cannot continue within the schema after 1 token: "
        "the schema asks for more at once than the library can follow"
    )
    assert matcher.error.hint == "simplify the schema, or divide it into several"
