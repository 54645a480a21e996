"""Texts with guesses are those without, to the last token."""

import random
from dataclasses import replace

import mlx.core as mx
import pytest
from doubtful_sampler import doubtful_sampler
from scripted_guide import ScriptedGuide
from speculated import STRATEGIES, Oracle, decoder_for, guessed_text, plain_text, sampler_for
from tiny_checkpoint import hybrid_configs, tiny_config, write_checkpoint

from metal_gen.cache.hybrid import HybridCache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.stopping import FinishDetail
from metal_gen.sampling.logits_error import LogitsError
from metal_gen.sampling.sampler import Sampler
from metal_gen.speculation.lookup import Lookup
from metal_gen.speculation.together import Together

pytestmark = pytest.mark.metal

CAPACITY = 90
PROMPTS = [[3, 17, 60, 8, 41, 22], [5] * 20, list(range(3, 30)) * 2]
WAYS = pytest.mark.parametrize("rows_apart", [True, False], ids=["apart", "together"])


@pytest.fixture
def decoder(tiny_model, make_cache):
    return decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))


def oracle_of(expected, chance, **options):
    """Guesses of a text and of what does not follow it, with an error now and then."""
    ids = [token for token, *_ in expected]
    wrong = [place for place in range(len(ids)) if chance.random() < 0.2]
    return Oracle([*ids, 9, 9, 9, 9], wrong, **options)


@WAYS
@pytest.mark.parametrize("name", STRATEGIES)
def test_any_guesses_give_the_plain_text(decoder, name, rows_apart):
    chance = random.Random(name)
    for number, most in enumerate([None, chance.choice([1, 2, 7]), 30]):
        prompt = PROMPTS[number]

        def sampler(prompt=prompt, seed=number):
            return sampler_for(prompt, STRATEGIES[name], seed=seed)

        expected = plain_text(decoder, prompt, sampler(), most=most)
        ids = [token for token, *_ in expected]
        source = oracle_of(expected, chance)
        found, speculation = guessed_text(
            decoder, prompt, sampler(), source, most=most, rows_apart=rows_apart, depth=chance.randint(1, 9)
        )
        assert found == expected
        assert source.given == ids
        counts = speculation.counts
        assert counts.tokens == len(ids)
        assert counts.accepted <= counts.drafted
        assert counts.passes + counts.accepted >= len(ids)
        assert decoder.cache.position == len(prompt) + len(ids) - 1


@pytest.mark.release
@WAYS
def test_hundreds_of_texts_are_the_plain_ones(decoder, rows_apart):
    chance = random.Random(2)
    for number in range(200):
        prompt, strategy = PROMPTS[number % 3], list(STRATEGIES.values())[number % 5]
        most = chance.choice([None, 1, 3, 20])
        expected = plain_text(decoder, prompt, sampler_for(prompt, strategy, seed=number), most=most)
        source = Together([Lookup(CAPACITY), oracle_of(expected, chance)])
        found, _ = guessed_text(
            decoder, prompt, sampler_for(prompt, strategy, seed=number), source, most=most,
            rows_apart=rows_apart, depth=chance.randint(1, 12),
        )  # fmt: skip
        assert found == expected


@WAYS
def test_the_first_source_that_has_a_guess_is_asked(decoder, rows_apart):
    prompt, strategy = PROMPTS[1], STRATEGIES["bias"]
    expected = plain_text(decoder, prompt, sampler_for(prompt, strategy), most=40)
    lookup, oracle = Lookup(CAPACITY), oracle_of(expected, random.Random(5), needs_hidden=True)
    source = Together([lookup, oracle])
    assert (source.name, source.needs_hidden) == ("lookup+oracle", True)
    found, speculation = guessed_text(
        decoder, prompt, sampler_for(prompt, strategy), source, most=40, rows_apart=rows_apart
    )
    assert found == expected
    assert oracle.given == [token for token, *_ in expected]
    assert speculation.counts.accepted > 10


@WAYS
def test_good_guesses_save_passes(decoder, rows_apart):
    prompt, strategy = PROMPTS[0], replace(STRATEGIES["greedy"], min_tokens=40)
    expected = plain_text(decoder, prompt, sampler_for(prompt, strategy), most=40)
    source = Oracle([token for token, *_ in expected])
    found, speculation = guessed_text(
        decoder, prompt, sampler_for(prompt, strategy), source, most=40, depth=7, rows_apart=rows_apart
    )
    assert found == expected
    # The first token comes with the prompt, and eight with each pass; the last pass has what is left.
    assert (speculation.counts.passes, speculation.counts.accepted) == (1 + 5, 34)
    assert speculation.counts.tokens_per_pass == pytest.approx(40 / 6)


@WAYS
@pytest.mark.parametrize("name", ["greedy", "penalties", "sampled"])
def test_log_probabilities_are_those_of_the_plain_text(decoder, name, rows_apart):
    prompt = PROMPTS[1]

    def sampler():
        return sampler_for(prompt, STRATEGIES[name], logprobs=2)

    expected = plain_text(decoder, prompt, sampler(), most=30)
    found, _ = guessed_text(
        decoder, prompt, sampler(), oracle_of(expected, random.Random(name)), most=30, rows_apart=rows_apart
    )
    assert [token for token, *_ in found] == [token for token, *_ in expected]
    for (*_, one), (*_, other) in zip(found, expected, strict=True):
        assert one.model_logprob == pytest.approx(other.model_logprob, abs=1e-4)
        assert one.sampling_logprob == pytest.approx(other.sampling_logprob, abs=1e-4)
        assert len(one.top_model_logprobs) == 2


@WAYS
def test_draws_that_must_be_repeated_give_the_plain_text(decoder, rows_apart):
    prompt, redrawn = PROMPTS[2], []
    kind = doubtful_sampler(redrawn)
    expected = plain_text(decoder, prompt, sampler_for(prompt, STRATEGIES["penalties"]), most=30)
    source = oracle_of(expected, random.Random(1))
    found, _ = guessed_text(
        decoder, prompt, sampler_for(prompt, STRATEGIES["penalties"], kind=kind), source, most=30,
        rows_apart=rows_apart,
    )  # fmt: skip
    assert found == expected
    assert redrawn


def next_ones(tokens):
    """Five tokens, which the last one decides."""
    last = tokens[-1] if tokens else 7
    return [3 + (last * 5 + step * 11) % 60 for step in range(5)]


def run_of(tokens):
    """After every seventh token four others."""
    return [10 + len(tokens) % 50, 11, 12, 13] if len(tokens) % 7 == 3 else []


GUIDES = {
    "free": lambda: ScriptedGuide(),
    "allowed": lambda: ScriptedGuide(next_ones),
    "forced": lambda: ScriptedGuide(next_ones, run_of),
    "forced from the start": lambda: ScriptedGuide(
        next_ones, lambda tokens: range(20, 25) if not tokens else run_of(tokens)
    ),
    "ends": lambda: ScriptedGuide(next_ones, ends=lambda tokens: len(tokens) >= 9),
    "only forced": lambda: ScriptedGuide(None, lambda tokens: [5, 6, 7, 8], lambda tokens: len(tokens) == 3),
}


@WAYS
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_gets_what_it_asks_for(decoder, guide, rows_apart):
    chance = random.Random(guide)
    drafted, prompt = 0, PROMPTS[0]
    for name in ("sampled", "penalties"):

        def sampler(name=name):
            return sampler_for(prompt, STRATEGIES[name])

        expected = plain_text(decoder, prompt, sampler(), most=33, guide=GUIDES[guide]())
        follower = GUIDES[guide]()
        found, speculation = guessed_text(
            decoder, prompt, sampler(), oracle_of(expected, chance), most=33, guide=follower,
            rows_apart=rows_apart,
        )  # fmt: skip
        assert found == expected
        assert follower.tokens == [token for token, *_ in expected]
        drafted += speculation.counts.drafted
    assert drafted or guide == "only forced"


def test_a_text_ends_within_guesses(decoder):
    prompt = PROMPTS[0]
    for seed in range(20):
        strategy = STRATEGIES["flat"]
        expected = plain_text(decoder, prompt, sampler_for(prompt, strategy, seed=seed), most=60)
        source = Oracle([token for token, *_ in expected] * 2)
        found, _ = guessed_text(decoder, prompt, sampler_for(prompt, strategy, seed=seed), source, most=60)
        assert found == expected
        if found[-1][1] in (FinishDetail.EOS, FinishDetail.STOP_TOKEN):
            return
    pytest.fail("no text ended with a token")


@WAYS
def test_a_failure_comes_after_the_tokens_before_it(decoder, rows_apart, monkeypatch):
    class Failing(Sampler):
        def draw(self, logits, index, allowed=None):
            return super().draw(logits + (mx.inf if index == 9 else 0), index, allowed)

        def follows_rule_alone(self, index):
            return False

    expected = plain_text(decoder, PROMPTS[0], sampler_for(PROMPTS[0], STRATEGIES["greedy"]), most=20)
    source = Oracle([token for token, *_ in expected])
    found = []
    sampler = sampler_for(PROMPTS[0], STRATEGIES["greedy"], kind=Failing)
    monkeypatch.setattr("speculated.described", lambda tokens: [found.append(token.id) for token in tokens])
    with pytest.raises(LogitsError, match="no token can be chosen at new token 10"):
        guessed_text(decoder, PROMPTS[0], sampler, source, most=20, rows_apart=rows_apart)
    assert found == [token for token, *_ in expected[:9]]


@WAYS
@pytest.mark.parametrize("name", ["qwen3_next-untied", "qwen3_5-untied"])
def test_hybrids_give_the_plain_text(tmp_path, make_cache, name, rows_apart):
    folder = write_checkpoint(tmp_path, dict(hybrid_configs())[name])
    model = Checkpoint(folder).weights.load("float32")
    config = make_cache(model, max_seq_len=CAPACITY).config
    size = {"recent_passes": 6} if rows_apart else {"most_replayed": 6}
    plain = decoder_for(model, HybridCache(config))
    decoder = decoder_for(model, HybridCache(replace(config, **size)))
    for number in range(2):
        prompt, strategy = PROMPTS[number], STRATEGIES["sampled"]
        expected = plain_text(plain, prompt, sampler_for(prompt, strategy, seed=number), most=30)
        found, _ = guessed_text(
            decoder, prompt, sampler_for(prompt, strategy, seed=number),
            oracle_of(expected, random.Random(number)), most=30, depth=5, rows_apart=rows_apart,
        )  # fmt: skip
        assert found == expected


@WAYS
def test_hidden_states_are_those_of_the_tokens(decoder, rows_apart):
    prompt, strategy = PROMPTS[2], STRATEGIES["greedy"]
    expected = plain_text(decoder, prompt, sampler_for(prompt, strategy), most=20)
    source = oracle_of(expected, random.Random(3), needs_hidden=True)
    found, _ = guessed_text(
        decoder, prompt, sampler_for(prompt, strategy), source, most=20, rows_apart=rows_apart, depth=4
    )
    assert found == expected
    assert source.prefilled_tokens == len(prompt)
    assert source.hidden[0] is None
    for token, hidden in zip(source.given[1:], source.hidden[1:], strict=True):
        assert int(mx.argmax(decoder.model.logits(hidden))) == token


@pytest.mark.parametrize("rope", ["dynamic", "window"])
def test_passes_whose_rows_would_differ_give_the_plain_text(tmp_path, make_cache, rope):
    changes = {
        "dynamic": {
            "rope_scaling": {"rope_type": "dynamic", "factor": 4.0},
            "max_position_embeddings": 40,
        },
        "window": {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 0},
    }
    folder = write_checkpoint(tmp_path, tiny_config("qwen2", **changes[rope]))
    model = Checkpoint(folder).weights.load("float32")
    decoder = decoder_for(model, make_cache(model, max_seq_len=70))
    prompt, strategy = PROMPTS[1], STRATEGIES["sampled"]
    expected = plain_text(decoder, prompt, sampler_for(prompt, strategy))
    source = oracle_of(expected, random.Random(2))
    found, _ = guessed_text(decoder, prompt, sampler_for(prompt, strategy), source, rows_apart=False)
    assert found == expected


@WAYS
@pytest.mark.parametrize("name", ["greedy", "penalties"])
def test_a_lookup_gives_the_plain_text(decoder, name, rows_apart):
    drafted = 0
    for number in range(2):
        prompt = PROMPTS[1 + number]
        strategy = replace(STRATEGIES[name], temperature=STRATEGIES[name].temperature / 2)
        expected = plain_text(decoder, prompt, sampler_for(prompt, strategy, seed=number))
        found, speculation = guessed_text(
            decoder, prompt, sampler_for(prompt, strategy, seed=number), Lookup(CAPACITY),
            rows_apart=rows_apart,
        )  # fmt: skip
        assert found == expected
        drafted += speculation.counts.drafted
    assert drafted
