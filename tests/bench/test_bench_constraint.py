"""The section of constraints: texts without and with them in turns, and a document that was written."""

import json

import jsonschema
import pytest

import metal_gen
from metal_gen.bench.runners.engine import EngineRunner
from metal_gen.bench.sections import constraint as section
from metal_gen.constraints.constraint import Constraint

pytest_plugins = ("fixtures_text",)


@pytest.fixture(scope="module")
def model(gambler):
    return metal_gen.load(gambler, max_seq_len=256)


def test_every_figure_has_a_value(model):
    checkpoint = model.checkpoint
    trials = section.constraint_trials(
        EngineRunner(model.decoder), checkpoint.token_table, checkpoint.tokenizer, depth=8, count=12
    )
    values = {}
    for trial in trials:
        names = [figure.name for figure in trial.measurements]
        values.update(zip(names, trial.run(), strict=True))
    assert values["string_of_free"] == pytest.approx(values["string_tps"] / values["free_tps"])
    assert {"document_mask_us", "document_mask_wait_us", "written_mask_us"} <= set(values)
    assert all(value > 0 for value in values.values())


def test_the_written_document_follows_its_schema(model):
    tokenizer = model.checkpoint.tokenizer
    tokens = section.written_tokens(tokenizer)
    written = json.loads(b"".join(map(tokenizer.token_bytes, tokens)) + b"]")
    for person in written:
        jsonschema.validate(person, section.PERSON)
    # None but the tokens that are drawn are looked for.
    seconds = section.mask_seconds(model.checkpoint.token_table, tokens)
    assert len(written) < len(seconds) < len(tokens)


def test_a_document_that_breaks_its_schema_is_an_error(model):
    tokens = model.checkpoint.tokenizer.encode('[{"name":7', add_special_tokens=False)
    with pytest.raises(metal_gen.MetalGenError, match="not allowed"):
        section.mask_seconds(model.checkpoint.token_table, tokens)


def test_a_guide_that_allows_no_token_says_why(model):
    grammar = Constraint.lark(r'start: "a" /[^\x00-\u{10FFFF}]/')
    guide = section.TimedGuide(model.checkpoint.token_table, grammar)
    guide.accept(*model.checkpoint.tokenizer.encode("a", add_special_tokens=False))
    assert guide.error is None
    guide.allowed()
    assert "no token of this model can continue it" in guide.error.message
    guide.take_back(1)
    assert guide.error is None
