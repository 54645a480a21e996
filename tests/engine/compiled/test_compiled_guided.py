"""Texts with a guide, by compiled functions: they are those of plain operations."""

import mlx.core as mx
import pytest
from cpp_kernel import CppKernels, needs_compiler
from on_device import cpu_only
from scripted_guide import ScriptedGuide, bits_of
from speculated import STRATEGIES, decoder_for, plain_text, sampler_for
from tiny_checkpoint import hybrid_configs, tiny_config, write_checkpoint

from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine import decoder as decoders
from metal_gen.models.cache_size import cache_size
from metal_gen.models.kernels.choice import BY_KERNEL
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.kernels.fitted import fitted
from metal_gen.sampling.allowed import Allowed
from metal_gen.sampling.logprobs import read_logprobs

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

CAPACITY, PROMPT = 120, [3, 17, 60, 8, 41, 22]
HEADS = {"head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
CONFIGS = {
    "dense": tiny_config("qwen3", **HEADS),
    "dynamic": tiny_config(
        "qwen3", rope_scaling={"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=14
    ),
    "window": tiny_config("qwen2", **HEADS, use_sliding_window=True, sliding_window=9, max_window_layers=0),
    "qwen3_5": {**dict(hybrid_configs())["qwen3_5-untied"], **HEADS},
}


@pytest.fixture(autouse=True)
def compile_passes_at_once(monkeypatch):
    monkeypatch.setattr(decoders, "PLAIN_PASSES", 0)


def next_ones(tokens):
    """Five tokens, which the last one decides; none ends a text."""
    last = tokens[-1] if tokens else 7
    return [3 + (last * 5 + step * 11) % 60 for step in range(5)]


def runs(tokens):
    """Runs of 1 to 8 tokens, with drawn ones between them."""
    return [3 + (len(tokens) + place) % 60 for place in range(1 + len(tokens) % 8)] * (tokens[-1:] < [30])


def forced(tokens):
    return [] if len(tokens) < 2 or tokens[-1] % 3 else runs(tokens)


def guided(decoder, strategy, *, most=60):
    sampler, guide = sampler_for(PROMPT, strategy), ScriptedGuide(next_ones, forced)
    made = plain_text(decoder, PROMPT, sampler, most=most, guide=guide)
    assert [token for token, *_ in made] == guide.tokens
    return made


def loaded(folder, name):
    return Checkpoint(write_checkpoint(folder, CONFIGS[name])).weights.load("float32")


def decoder_of(model, *, compiles):
    return decoder_for(
        model,
        new_cache(cache_size(model.config, max_seq_len=CAPACITY, dtype="float32")),
        compiles=compiles,
    )


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "dynamic"])
def test_texts_are_those_of_plain_operations(tmp_path, name):
    model = loaded(tmp_path, name)
    plain, compiled = (decoder_of(model, compiles=compiles) for compiles in (False, True))
    for strategy in STRATEGIES.values():
        # The second one goes to the very end of the cache, where a pass cannot be filled up.
        for most in (60, None):
            expected = guided(plain, strategy, most=most)
            assert guided(compiled, strategy, most=most) == expected
            assert compiled.cache.position == plain.cache.position
    assert compiled.compiled_rows.count > 2


@needs_compiler
@cpu_only
@pytest.mark.parametrize("name", ["dense", "window", "qwen3_5"])
def test_the_kernel_writes_forced_tokens(tmp_path, monkeypatch, programs, name):
    kernels = CppKernels(programs)
    monkeypatch.setattr(Code, "__call__", kernels.as_method)
    model = loaded(tmp_path, name)
    expected = guided(decoder_of(model, compiles=False), STRATEGIES["penalties"])
    by_kernel = fitted(model, ModelKernels(attention=BY_KERNEL))
    assert guided(decoder_of(by_kernel, compiles=True), STRATEGIES["penalties"]) == expected
    assert kernels.names


def test_the_first_passes_are_plain_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(decoders, "PLAIN_PASSES", 2)
    decoder = decoder_of(loaded(tmp_path, "dense"), compiles=True)
    decoder.prefill(PROMPT)
    counts = []
    for length in (3, 3, 3, 3, 6, 9, 7):
        decoder.extend([5] * length)
        decoder.cache.evaluate()
        counts.append(decoder.compiled_rows.count)
    assert counts == [0, 0, 1, 1, 1, 1, 2]
    assert decoder.cache.position == len(PROMPT) + 34


@pytest.mark.parametrize("logprobs", [None, 2])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_step_and_a_draw_from_some_tokens_are_those_of_plain_operations(tmp_path, name, logprobs):
    model = loaded(tmp_path, "dense")
    plain, compiled = (decoder_of(model, compiles=compiles) for compiles in (False, True))
    samplers = [sampler_for(PROMPT, STRATEGIES[name], logprobs=logprobs) for _ in range(2)]
    for decoder in (plain, compiled):
        mx.eval(decoder.prefill(PROMPT))
    some, one, other = (bits_of(tokens, 64) for tokens in ([3, 9, 31, 32, 63], [40], [5, 6]))
    sets = [None, Allowed(some), Allowed(one), Allowed(other), Allowed(some, one)]
    for index in range(20):
        allowed, token = sets[index % len(sets)], mx.array([7 * index % 64])
        expected, found = (
            decoder.draw_next(token, sampler, index, allowed)
            for decoder, sampler in zip((plain, compiled), samplers, strict=True)
        )
        assert found.outcomes.tolist() == expected.outcomes.tolist()
        assert found.allowed is allowed
        if logprobs is not None:
            ours, theirs = (read_logprobs(draw.logprobs) for draw in (found, expected))
            assert ours.sampling_logprob == pytest.approx(theirs.sampling_logprob, abs=1e-4)
            assert dict(ours.top_model_logprobs) == pytest.approx(dict(theirs.top_model_logprobs), abs=1e-4)


def test_other_tokens_of_the_same_kind_need_no_other_function(tmp_path):
    decoder = decoder_of(loaded(tmp_path, "dense"), compiles=True)
    mx.eval(decoder.prefill(PROMPT))
    sampler, counts = sampler_for(PROMPT, STRATEGIES["sampled"]), []
    for index, tokens in enumerate([None, [3], [5, 6], None, [3, 4, 60]]):
        allowed = None if tokens is None else Allowed(bits_of(tokens, 64))
        draw = decoder.draw_next(mx.array([9]), sampler, index, allowed)
        assert tokens is None or draw.token.item() in tokens
        counts.append(decoder.compiled_count)
    assert counts == [1, 2, 2, 2, 2]
