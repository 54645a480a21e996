"""Guesses in whole texts: samples, thinking, stop strings, conversations, memory and what is reported."""

import json

import jsonschema
import pytest
from cli_process import ROOT

import metal_gen
from metal_gen.config.settings import Settings
from metal_gen.errors import ConfigError, UsageError
from metal_gen.generation.guessing import guesses_notices
from metal_gen.generation.loading import prepare

pytest_plugins = ("fixtures_text", "fixtures_cli")
pytestmark = pytest.mark.metal

SCHEMA = json.loads((ROOT / "metal_gen" / "schemas" / "output.json").read_text())
PROMPT = "the cat and the dog and the cat and the dog and the cat"
RANDOM = {"temperature": 0.4, "max_tokens": 60, "seed": 5}


@pytest.fixture(scope="module")
def models(gambler):
    """The same model without and with guesses."""
    return [metal_gen.load(gambler, max_seq_len=200, speculate=speculate) for speculate in ("off", "lookup")]


def seen(generation):
    return generation.text, generation.thinking, generation.token_ids, generation.finish, generation.stop_text


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.0},
        {"stop": ("the", "qu")},
        {"logprobs": 1},
        {"break_loops": True},
        {"thinking_budget": 5},
        {"regex": "(ab|ac)*d"},
        {"max_tokens": None},
        {"repetition_penalty": 1.2, "min_tokens": 20},
    ],
    ids=str,
)
def test_guesses_change_no_text(models, settings):
    for prompt in (PROMPT, "abc " * 9):
        plain, guessed = (metal_gen.generate(model, prompt, **{**RANDOM, **settings}) for model in models)
        assert seen(guessed) == seen(plain)
        assert plain.statistics.speculation is None
        assert guessed.statistics.speculation.tokens >= len(guessed.token_ids)


@pytest.mark.quick
def test_guesses_at_a_limit_of_the_grammar_change_no_text(models):
    never = r"/[^\x00-\u{10FFFF}]/"
    settings = {**RANDOM, "grammar": f'start: /[ab]{{20}}/ (x x)\nx: {never} | "c" x', "max_tokens": 40}
    plain, guessed = (metal_gen.generate(model, "abababababababab", **settings) for model in models)
    assert seen(guessed) == seen(plain)
    assert guessed.statistics.speculation.drafted


def test_samples_are_those_without_guesses(models):
    plain, guessed = (metal_gen.generate_samples(model, PROMPT, 3, **RANDOM) for model in models)
    assert [seen(each) for each in guessed] == [seen(each) for each in plain]
    for each in guessed:
        assert each.statistics.speculation.tokens == len(each.token_ids)


@pytest.mark.quick
def test_a_conversation_goes_on_as_without_guesses(models):
    talks = [metal_gen.Conversation(model, **{**RANDOM, "max_tokens": 20}) for model in models]
    for text in ("hello hello hello hello", "again: hello hello", "and the end"):
        answers = [[(piece.text, piece.token_id) for piece in talk.ask(text)] for talk in talks]
        assert answers[0] == answers[1]


@pytest.mark.quick
def test_a_text_that_is_left_leaves_nothing_behind(models):
    expected = metal_gen.generate(models[0], PROMPT, **RANDOM)
    pieces = metal_gen.stream_generate(models[1], PROMPT, **{**RANDOM, "seed": 9})
    for _, _ in zip(range(7), pieces, strict=False):
        pass
    pieces.close()
    assert seen(metal_gen.generate(models[1], PROMPT, **RANDOM)) == seen(expected)


@pytest.mark.quick
def test_the_memory_of_guesses_is_planned(gambler):
    plain, guessed = (prepare(Settings(model=gambler, speculate=each)).plan for each in ("off", "lookup"))
    assert guessed.total_bytes > plain.total_bytes
    assert guessed.guesses_bytes == 36 * guessed.cache.max_seq_len
    assert prepare(Settings(model=gambler, speculate="lookup", batch_size=2)).guesses is None


@pytest.mark.quick
@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"speculate": "mtp"}, "no layers for multi-token prediction"),
        ({"speculate": "draft"}, "guesses of a draft model need one"),
        ({"speculate": "lookup", "draft_model": "x"}, "a draft model contradicts speculate = 'lookup'"),
        ({"speculate": "off", "draft_model": "x"}, "a draft model contradicts speculate = 'off'"),
        ({"speculate": "off", "draft_tokens": 5}, "a number of guesses contradicts speculate = 'off'"),
        ({"draft_tokens": 0}, "draft_tokens must be a whole number from 1 to 64"),
        ({"draft_tokens": 65}, "draft_tokens must be a whole number from 1 to 64"),
        ({"speculate": "on"}, "speculate must be auto, off, lookup, mtp or draft"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_before_weights_are_read(gambler, settings, problem, monkeypatch):
    monkeypatch.setattr("metal_gen.generation.loading.PreparedModel.load", lambda self: pytest.fail("loaded"))
    with pytest.raises((UsageError, ConfigError), match=problem):
        metal_gen.load(gambler, **settings)


NO_EFFECT = "draft_tokens has no effect (--x): speculate = 'auto' guesses on a GPU only"


@pytest.mark.quick
@pytest.mark.parametrize(
    ("settings", "on_cpu", "expected"),
    [
        ({"draft_tokens": 5}, True, [NO_EFFECT]),
        ({"draft_tokens": 5}, False, []),
        ({"draft_tokens": 5, "speculate": "lookup"}, True, []),
        ({}, True, []),
    ],
    ids=str,
)
def test_one_notice_says_where_a_number_of_guesses_has_no_effect(settings, on_cpu, expected, monkeypatch):
    monkeypatch.setattr("metal_gen.generation.guessing.runs_on_cpu", lambda: on_cpu)
    assert guesses_notices(Settings().override(settings, "--x"), None) == expected


def test_json_and_the_closing_line_say_what_came_of_guesses(run_here, babbler):
    arguments = ["generate", "--model", babbler, "-p", "x", "-n", "60", "--draft-tokens", "8"]
    outcome = run_here(*arguments, "--speculate", "lookup", "--json", "-v")
    made = json.loads(outcome.stdout)
    jsonschema.Draft202012Validator({**SCHEMA, "anyOf": [{"$ref": "#/$defs/run"}]}).validate(made)
    found = made["speculation"]
    assert found["source"] == "lookup"
    assert found["accepted"] > 20
    assert found["tokens_per_pass"] == pytest.approx(60 / found["passes"])
    assert f"lookup: {found['accepted']} of {found['drafted']} guesses right" in outcome.stderr
    plain = json.loads(run_here(*arguments, "--json").stdout)
    assert "speculation" not in plain
    assert plain["text"] == made["text"]
