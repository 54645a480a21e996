"""Tests the compiled step: it gives the same tokens as the plain one, with few functions and in place."""

import shutil
from itertools import pairwise, product

import mlx.core as mx
import numpy as np
import pytest
from adapter_files import load_adapted_and_quantized
from decoded import CAPACITY, PROMPT, VARIANTS, assert_close, text
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.bench.runners.step_graph import count_primitives
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.device.buffer_cache import clear_buffer_cache
from metal_gen.engine import read_lengths
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.read_lengths import attended_length
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy, SamplingStrategy, Temperature, TopP

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

STRATEGIES = {
    "greedy": Greedy(),
    "temperature": Temperature(0.8),
    "nucleus": TopP(0.9),
    "top-k": SamplingStrategy(top_k=5, min_p=0.01),
    "biased": SamplingStrategy(logit_bias={7: 2.0, 9: -np.inf}),
    "late end": SamplingStrategy(min_tokens=6),
    "penalties": SamplingStrategy(repetition_penalty=1.3, presence_penalty=0.2),
}


needs_a_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="MLX compiles for a CPU through g++, which is not here"
)


@pytest.fixture
def fusing(without_fusing):
    mx.enable_compile()


@pytest.fixture
def short_strides(monkeypatch):
    monkeypatch.setattr(read_lengths, "SHORTEST_STRIDE", 8)


def load(folder, **changes):
    config = tiny_config("qwen3", vocab_size=64, **changes)
    return Checkpoint(write_checkpoint(folder, config)).weights.load("float32")


@pytest.mark.parametrize(
    ("variant", "strategy"),
    [
        pytest.param(variant, strategy, marks=pytest.mark.release if number % 2 else ())
        for number, (variant, strategy) in enumerate(product(VARIANTS, STRATEGIES))
    ],
)
def test_the_text_equals_that_of_the_plain_step(tmp_path, make_cache, short_strides, variant, strategy):
    strategy = STRATEGIES[strategy]
    model = load(tmp_path, **VARIANTS[variant])
    plain = text(Decoder(model, make_cache(model, max_seq_len=CAPACITY)), strategy)
    decoder = Decoder(model, make_cache(model, max_seq_len=CAPACITY), compiles=True)
    made = text(decoder, strategy)
    assert [token.id for token in made] == [token.id for token in plain]
    assert decoder.compiled.count >= 4  # Several lengths were compiled.


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_those_of_the_plain_step(tmp_path, make_cache, short_strides, variant):
    model = load(tmp_path, **VARIANTS[variant])
    plain = Decoder(model, make_cache(model, max_seq_len=CAPACITY))
    compiled = Decoder(model, make_cache(model, max_seq_len=CAPACITY), compiles=True)
    sampler = Sampler(Greedy(), RandomKeys(0), prompt=PROMPT, capacity=CAPACITY)
    for decoder in (plain, compiled):
        mx.eval(decoder.prefill(PROMPT))
    for index in range(CAPACITY - len(PROMPT)):
        token = mx.array([7 * index % 64])
        drawn = compiled.draw_next(token, sampler, index)
        assert_close(drawn.logits, plain.step(token))
        assert compiled.cache.position == plain.cache.position
    for ours, theirs in zip(compiled.cache.buffers, plain.cache.buffers, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_first_part_of_a_step_can_be_computed_alone(tmp_path, make_cache, short_strides, variant):
    model = load(tmp_path, **VARIANTS[variant], num_hidden_layers=6)
    decoders = [Decoder(model, make_cache(model, max_seq_len=CAPACITY), compiles=True) for _ in range(2)]
    for decoder in decoders:
        mx.eval(decoder.prefill(PROMPT))
    for token in (9, 4, 33):
        in_parts, whole = (decoder.step_in_parts(mx.array([token])) for decoder in decoders)
        share = count_primitives(in_parts.first_part) / count_primitives(in_parts.logits)
        assert 0.15 < share < 0.5
        mx.eval(in_parts.first_part)
        assert in_parts.logits.tolist() == whole.logits.tolist()


@pytest.mark.quick
def test_adapters_are_part_of_the_compiled_step(tmp_path, make_cache, short_strides):
    model = load_adapted_and_quantized(tmp_path)
    plain, compiled = (
        [token.id for token in text(Decoder(model, make_cache(model, CAPACITY), compiles=compiles), Greedy())]
        for compiles in (False, True)
    )
    assert compiled == plain


@pytest.mark.quick
def test_log_probabilities_equal_those_of_the_plain_step(tiny_model, make_cache):
    plain = text(Decoder(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY)), TopP(0.9), logprobs=3)
    decoder = Decoder(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY), compiles=True)
    for ours, theirs in zip(text(decoder, TopP(0.9), logprobs=3), plain, strict=True):
        for array, other in zip(ours.draw.logprobs, theirs.draw.logprobs, strict=True):
            assert_close(array, other)


@pytest.mark.quick
def test_functions_are_reused_for_the_next_text(tiny_model, make_cache, short_strides):
    decoder = Decoder(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY), compiles=True)
    first = text(decoder, Temperature(1.0), seed=1)
    count = decoder.compiled.count
    assert count == len({attended_length(place, CAPACITY) for place in range(6, 35)})
    assert [token.id for token in text(decoder, Temperature(1.0), seed=2)] != [token.id for token in first]
    assert [token.id for token in text(decoder, Temperature(1.0), seed=1)] == [token.id for token in first]
    assert decoder.compiled.count == count
    text(decoder, Greedy())
    assert decoder.compiled.count == 2 * count


@pytest.mark.quick
def test_a_full_cache_is_refused_and_unchanged(tiny_model, make_cache):
    decoder = Decoder(tiny_model, make_cache(tiny_model, max_seq_len=len(PROMPT)), compiles=True)
    logits = decoder.prefill(PROMPT)
    sampler = Sampler(Greedy(), RandomKeys(0), prompt=PROMPT, capacity=len(PROMPT))
    with pytest.raises(Exception, match="the cache is full"):
        decoder.draw_next(mx.array([1]), sampler, 1)
    assert decoder.cache.position == len(PROMPT)
    assert np.isfinite(np.array(logits)).all()


@pytest.mark.quick
@pytest.mark.release
@needs_a_compiler
def test_fused_operations_give_the_same_text(tiny_model, make_cache, fusing):
    plain = text(Decoder(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY)), TopP(0.9))
    decoder = Decoder(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY), compiles=True)
    assert [token.id for token in text(decoder, TopP(0.9))] == [token.id for token in plain]


@needs_a_compiler
def test_buffers_are_written_in_place(tiny_model, make_cache, fusing):
    """A step takes as little memory in a large cache as in a small one, for the same text."""
    plain = text(Decoder(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY)), Greedy(), count=24)

    def peak(capacity):
        decoder = Decoder(tiny_model, make_cache(tiny_model, max_seq_len=capacity), compiles=True)
        text(decoder, Greedy(), count=8)
        clear_buffer_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        made = text(decoder, Greedy(), count=24)
        assert [token.id for token in made] == [token.id for token in plain]
        return mx.get_peak_memory() - before, decoder.cache.buffers[0].nbytes

    (small, _), (large, buffer) = peak(256), peak(65_536)
    assert large - small < buffer / 8


@pytest.mark.quick
def test_lengths_grow_in_strides_of_at_most_an_eighth():
    capacity = 100_000
    lengths = [attended_length(position, capacity) for position in range(1, capacity + 1)]
    assert all(length >= position for position, length in enumerate(lengths, 1))
    assert lengths[-1] == capacity
    distinct = sorted(set(lengths))
    assert all(after - before <= max(256, before / 8) for before, after in pairwise(distinct))
    assert len([length for length in distinct if length <= 4096]) == 16
    assert len(distinct) < 60
