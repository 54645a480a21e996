"""Tokens that the library takes together within a string: as many are allowed as one by one."""

import random

import pytest

from metal_gen.checkpoint.bundled import BUNDLED_FOLDER
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.constraints import token_table
from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.matcher import GrammarMatcher


@pytest.fixture(scope="module")
def tables():
    with pytest.MonkeyPatch.context() as patch:
        pair = []
        for slices in (token_table.SLICES, []):
            patch.setattr(token_table, "SLICES", slices)
            pair.append(Checkpoint(BUNDLED_FOLDER).token_table)
            pair[-1].build()
        return pair


def allowed_ids(bits):
    number = int.from_bytes(bits, "little")
    return [token for token in range(number.bit_length()) if number >> token & 1]


@pytest.mark.parametrize(
    "string",
    [
        *({"maxLength": length} for length in (1, 4, 5, 9, 11, 15, 16, 24)),
        {"minLength": 12},
        {"minLength": 6, "maxLength": 14},
        {"pattern": "^[a-z ]{2,13}$"},
        {"pattern": "^[^a]*$", "maxLength": 20},
    ],
    ids=str,
)
def test_tokens_of_a_string_are_those_found_one_by_one(tables, string):
    random_steps, constraint = random.Random(4), Constraint.schema({"type": "string", **string})
    for _ in range(4):
        sliced, single = (GrammarMatcher(table, constraint) for table in tables)
        for _ in range(30):
            bits = single.find_bits()
            assert sliced.find_bits() == bits
            if single.is_over:
                break
            token = random_steps.choice(allowed_ids(bits))
            for matcher in (sliced, single):
                matcher.accept(token)
            assert (sliced.error, single.error) == (None, None)
