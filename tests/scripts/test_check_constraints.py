"""Tests that texts under schemas are documents that fit them, as another program sees it."""

import jsonschema
import pytest

from scripts.check_constraints import check, misfit, usable
from scripts.constraint_schemas import SCHEMAS

ARGUMENTS = ["--temperature", "1.5", "-n", "200", "--seed", "5", "--max-seq-len", "256", "-q"]


def test_a_few_texts_fit(tmp_path):
    counts, wrong = check(SCHEMAS[3::7], 18, ARGUMENTS, tmp_path)
    assert wrong == []
    assert counts["fits"] >= 15
    assert counts.total() == 18


def test_every_schema_is_one_and_can_be_kept_to():
    for schema in SCHEMAS:
        jsonschema.Draft202012Validator.check_schema(schema)
    kept, refused = usable([*SCHEMAS, {"not": {}}, True])
    assert kept == SCHEMAS
    assert len(SCHEMAS) >= 60
    assert list(refused) == ["the schema has the keyword not, which is not supported", "true or false alone"]


@pytest.mark.parametrize(
    ("text", "fits"), [("5", True), ("12", False), ("", False), ('"5"', False), ("5.5", False)]
)
def test_what_does_not_fit_is_found(text, fits):
    assert (misfit({"type": "integer", "maximum": 9}, text) is None) == fits
