"""Texts whose passes over guesses are compiled functions are those without guesses."""

from dataclasses import replace

import mlx.core as mx
import pytest
from cpp_kernel import CppKernels, needs_compiler
from doubtful_sampler import doubtful_sampler
from on_device import cpu_only
from scripted_guide import ScriptedGuide
from speculated import STRATEGIES, Oracle, decoder_of, guessed_text, plain_text, sampler_for
from tiny_checkpoint import hybrid_configs, tiny_config, write_checkpoint

from metal_gen.cache.hybrid import HybridCache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine import read_lengths
from metal_gen.engine.compiled.rows import filled_up
from metal_gen.models.kernels.choice import BY_KERNEL
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.kernels.fitted import fitted
from metal_gen.models.kernels.next_attention import heads_of
from metal_gen.models.linear_attention import mixing

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

CAPACITY, DEPTH, PROMPT = 60, 5, [3, 17, 60, 8, 41, 22]
CONFIGS = {
    "dense": tiny_config("qwen3"),
    "dynamic": tiny_config(
        "qwen3", rope_scaling={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=14
    ),
    "window": tiny_config("qwen2", use_sliding_window=True, sliding_window=9, max_window_layers=0),
    "mixture": tiny_config("qwen3_moe", num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32),
    "qwen3_5": dict(hybrid_configs())["qwen3_5-untied"],
    "qwen3_next": dict(hybrid_configs())["qwen3_next-untied"],
}


@pytest.fixture
def short_strides(monkeypatch):
    monkeypatch.setattr(read_lengths, "SHORTEST_STRIDE", 8)


@pytest.fixture
def by_cpp(monkeypatch, programs):
    """Kernels run as C++."""
    kernels = CppKernels(programs)
    monkeypatch.setattr(Code, "__call__", kernels.as_method)
    return kernels


def loaded(folder, name):
    return Checkpoint(write_checkpoint(folder, CONFIGS[name])).weights.load("float32")


def assert_the_plain_text(plain, decoder, strategy, *, most, seed=3, **options):
    """Compare texts with guesses, some of which are wrong, and return their counts."""
    # Tokens that end a text are banned.
    strategy = replace(strategy, logit_bias=(*strategy.logit_bias, (1, -mx.inf), (2, -mx.inf)))
    expected = plain_text(plain, PROMPT, sampler_for(PROMPT, strategy, seed=seed), most=most)
    ids = [token for token, *_ in expected]
    source = Oracle(
        [*ids, 9, 9, 9, 9], {place for place in range(len(ids)) if place % 7 in (2, 3)}, **options
    )
    sampler = sampler_for(PROMPT, strategy, seed=seed)
    found, speculation = guessed_text(
        decoder, PROMPT, sampler, source, most=most, depth=DEPTH, rows_apart=False
    )
    assert found == expected
    assert decoder.compiled_rows.count > 0
    assert decoder.cache.position == len(PROMPT) + len(ids) - 1
    return speculation.counts, source


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "dynamic"])
def test_texts_are_the_plain_ones(tmp_path, short_strides, name):
    model = loaded(tmp_path, name)
    plain, decoder = decoder_of(model, compiles=False), decoder_of(model, compiles=True)
    for seed, strategy in enumerate(STRATEGIES.values()):
        # The last one goes to the very end of the cache.
        most = (26, 2, 9, 30, None)[seed]
        counts, _ = assert_the_plain_text(plain, decoder, strategy, most=most, seed=seed)
        assert most == 2 or 0 < counts.accepted < counts.drafted


@pytest.mark.parametrize("name", ["dense", "qwen3_5"])
def test_hidden_states_are_those_of_the_tokens(tmp_path, name):
    model = loaded(tmp_path, name)
    plain, decoder = decoder_of(model, compiles=False), decoder_of(model, compiles=True)
    _, source = assert_the_plain_text(plain, decoder, STRATEGIES["greedy"], most=30, needs_hidden=True)
    for token, hidden in zip(source.given[1:], source.hidden[1:], strict=True):
        logits = model.logits(hidden)
        logits[1:3] = -mx.inf
        assert int(mx.argmax(logits)) == token


def test_functions_are_few_and_reused(tmp_path):
    model = loaded(tmp_path, "dense")
    plain, decoder = decoder_of(model, compiles=False), decoder_of(model, compiles=True)
    ids = [token for token, *_ in plain_text(plain, PROMPT, sampler_for(PROMPT, STRATEGIES["greedy"]))]
    # A pass for each number of rows up to 21.
    for most in [*range(2, 23), *range(2, 23)]:
        sampler = sampler_for(PROMPT, STRATEGIES["greedy"])
        found, _ = guessed_text(decoder, PROMPT, sampler, Oracle(ids), most=most, depth=20, rows_apart=False)
        assert len(found) == most
    # 2, 3, 4, 5, 9, 17 and 21 rows.
    assert decoder.compiled_rows.count == 7


def test_what_fills_a_pass_up_does_not_count_as_text(tmp_path):
    """Dynamic RoPE turns all tokens of a text by other periods as soon as it is longer than in training."""
    model = loaded(tmp_path, "dynamic")
    plain, decoder = decoder_of(model, compiles=False), decoder_of(model, compiles=True)
    sampler = {"strategy": STRATEGIES["greedy"], "logprobs": 2}
    # 6 tokens follow the first one, in a pass of 9. The text has 13 tokens, and 14 are within the length.
    expected = plain_text(plain, PROMPT, sampler_for(PROMPT, **sampler), most=7)
    source = Oracle([token for token, *_ in expected])
    found, speculation = guessed_text(
        decoder, PROMPT, sampler_for(PROMPT, **sampler), source, most=7, depth=8, rows_apart=False
    )
    assert speculation.counts.accepted == 5
    for (token, _, one), (other, _, two) in zip(found, expected, strict=True):
        assert token == other
        assert one.model_logprob == pytest.approx(two.model_logprob, abs=1e-4)


def test_rows_are_filled_up_as_far_as_there_is_room():
    assert [filled_up(rows, 33) for rows in (1, 2, 5, 6, 10, 33)] == [1, 2, 5, 9, 17, 33]
    assert [filled_up(rows, 7) for rows in (4, 6, 7)] == [4, 7, 7]


def test_guides_and_log_probabilities_draw_from_the_logits(tmp_path):
    model = loaded(tmp_path, "dense")
    plain, decoder = decoder_of(model, compiles=False), decoder_of(model, compiles=True)

    def allowed(tokens):
        return [3 + ((tokens[-1] if tokens else 7) * 5 + step * 11) % 60 for step in range(5)]

    strategy = STRATEGIES["sampled"]
    guided = {"guide": ScriptedGuide(allowed)}
    expected = plain_text(plain, PROMPT, sampler_for(PROMPT, strategy), most=20, **guided)
    source = Oracle([token for token, *_ in expected])
    found, _ = guessed_text(
        decoder, PROMPT, sampler_for(PROMPT, strategy), source, most=20, depth=3, rows_apart=False,
        guide=ScriptedGuide(allowed),
    )  # fmt: skip
    assert found == expected
    expected = plain_text(plain, PROMPT, sampler_for(PROMPT, strategy, logprobs=2), most=20)
    source = Oracle([token for token, *_ in expected], {4, 9})
    sampler = sampler_for(PROMPT, strategy, logprobs=2)
    found, _ = guessed_text(decoder, PROMPT, sampler, source, most=20, depth=3, rows_apart=False)
    for (token, _, one), (other, _, two) in zip(found, expected, strict=True):
        assert token == other
        assert one.model_logprob == pytest.approx(two.model_logprob, abs=1e-4)


def test_doubtful_draws_are_drawn_again(tmp_path):
    model, redrawn = loaded(tmp_path, "dense"), []
    plain, decoder = decoder_of(model, compiles=False), decoder_of(model, compiles=True)
    strategy = STRATEGIES["sampled"]
    expected = plain_text(plain, PROMPT, sampler_for(PROMPT, strategy), most=30)
    source = Oracle([token for token, *_ in expected], {3, 11, 12})
    sampler = sampler_for(PROMPT, strategy, kind=doubtful_sampler(redrawn))
    found, _ = guessed_text(decoder, PROMPT, sampler, source, most=30, depth=3, rows_apart=False)
    assert found == expected
    assert redrawn


@needs_compiler
@cpu_only
@pytest.mark.parametrize("name", ["dense", "window", "qwen3_5"])
def test_the_kernel_writes_and_reads_the_rows_of_one_text(tmp_path, by_cpp, name):
    config = {**CONFIGS[name], "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = Checkpoint(write_checkpoint(tmp_path, config)).weights.load("float32")
    assert heads_of(model.config, normed=name != "window", sliding=name == "window").are_supported
    plain = decoder_of(model, compiles=False)
    decoder = decoder_of(fitted(model, ModelKernels(attention=BY_KERNEL)), compiles=True)
    for strategy in ("greedy", "penalties"):
        counts, _ = assert_the_plain_text(plain, decoder, STRATEGIES[strategy], most=25)
        assert counts.accepted
    assert by_cpp.names


@pytest.mark.parametrize("name", ["qwen3_5", "qwen3_next"])
def test_states_after_fewer_tokens_are_computed_again(tmp_path, name):
    assert_states_again(loaded(tmp_path, name))


@needs_compiler
@cpu_only
def test_states_after_fewer_tokens_are_computed_again_by_a_kernel(tmp_path, monkeypatch, by_cpp):
    monkeypatch.setattr(mixing, "runs_on_cpu", lambda: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    config = tiny_config("qwen3_5_text", linear_key_head_dim=32, linear_value_head_dim=32)
    assert_states_again(Checkpoint(write_checkpoint(tmp_path, config)).weights.load("float32"))
    assert "mix" in by_cpp.names


def assert_states_again(model):
    for rows, taken_back in [(6, 1), (6, 5), (6, 6), (5, 0), (3, 2)]:
        decoders = [decoder_of(model, compiles=compiles) for compiles in (False, True)]
        for decoder in decoders:
            decoder.prefill(PROMPT)
        tokens = mx.array([9, 8, 7, 6, 5, 4][:rows])
        decoders[1].run_compiled_rows(tokens)
        decoders[1].cache.take_back(taken_back)
        for token in tokens[: rows - taken_back]:
            decoders[0].step(token[None])
        assert isinstance(decoders[1].cache, HybridCache)
        expected, found = (decoder.step(mx.array([11])) for decoder in decoders)
        assert mx.abs(expected - found).max().item() < 2e-4


def test_passes_that_nobody_takes_back_keep_nothing(tmp_path):
    model = loaded(tmp_path, "qwen3_5")
    decoder = decoder_of(model, compiles=True)
    decoder.prefill(PROMPT)
    for rows, reached in [(DEPTH + 1, len(PROMPT) + DEPTH), (DEPTH + 2, len(PROMPT) + DEPTH + 1)]:
        decoder.run_compiled_rows(mx.full((rows,), 9))
        assert decoder.cache.reachable(decoder.cache.position - 1) == reached, rows


def test_a_replay_counts_as_compiled_when_it_is_first_used(tmp_path):
    decoder = decoder_of(loaded(tmp_path, "qwen3_5"), compiles=True)
    decoder.prefill(PROMPT)
    counts = []
    for taken_back in (0, 1, 1):
        decoder.run_compiled_rows(mx.full((3,), 9))
        counts.append(decoder.compiled_rows.count)
        decoder.cache.take_back(taken_back)
        counts.append(decoder.compiled_rows.count)
    assert counts == [1, 1, 1, 2, 2, 2]
