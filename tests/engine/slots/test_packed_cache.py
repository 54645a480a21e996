"""Tests texts with a cache in 8 bits: every way to compute one gives the same."""

import mlx.core as mx
import numpy as np
import pytest
from decoded import assert_close, text
from test_slots import alone, requests, together
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.device.backend import runs_on_cpu
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.slots.slot_decoder import SlotDecoder
from metal_gen.generation.memory.planning import cache_config
from metal_gen.models.packed_attention import MOST_PACKED_TOKENS
from metal_gen.sampling.strategy import Greedy

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

CAPACITY = 320  # As of the samplers of `test_slots`.
SLIDING = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
CONFIGS = {
    "qwen3": tiny_config("qwen3", head_dim=64),
    "sliding": tiny_config("qwen2", head_dim=64, **SLIDING),
    "hybrid": tiny_config("qwen3_5_text", head_dim=64),
}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request, tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp(request.param), CONFIGS[request.param])
    return Checkpoint(folder).weights.load("float32")


def packed_cache(model, **sizes):
    settings = Settings(cache_dtype="q8", **{"max_seq_len": CAPACITY, **sizes})
    return new_cache(cache_config(settings, model.config, "float32"))


def test_its_bytes_are_those_of_its_config(model):
    cache = packed_cache(model, max_seq_len=100, batch_size=3)
    layers = model.config.num_cached_layers
    assert sum(buffer.nbytes for buffer in cache.buffers) == 3 * layers * 2 * 2 * 100 * (64 + 2 * 4)
    assert cache.config.bytes_per_token * 100 == cache.nbytes


@pytest.mark.parametrize("chunk_size", [1, 7, MOST_PACKED_TOKENS, 30])
def test_a_prompt_in_chunks_gives_the_same_as_in_one(model, chunk_size):
    prompt = [3 + (7 * place) % 60 for place in range(70)]
    whole, parts = (
        Decoder(model, packed_cache(model), chunk_size=size).prefill(prompt) for size in (512, chunk_size)
    )
    # A last bit of a key can decide to which number it is rounded.
    np.testing.assert_allclose(np.array(parts), np.array(whole), atol=2e-3)


def test_logits_are_near_those_of_a_full_cache(model, make_cache):
    prompt = [3 + (7 * place) % 60 for place in range(70)]
    full = Decoder(model, make_cache(model, max_seq_len=CAPACITY)).prefill(prompt)
    packed = Decoder(model, packed_cache(model)).prefill(prompt)
    difference = np.abs(np.array(packed - full)).max()
    assert 0 < difference < 0.02 * np.abs(np.array(full)).max()


def test_the_compiled_step_gives_the_same_text(model):
    texts = [
        [token.id for token in text(Decoder(model, packed_cache(model), compiles=compiles), Greedy())]
        for compiles in (False, True)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("compiles", [False, True])
def test_slots_give_the_same_texts(model, compiles):
    wanted = requests(5)
    cache = packed_cache(model)
    expected = {request[0]: alone(model, cache, request) for request in wanted}
    decoder = SlotDecoder(
        model, packed_cache(model, batch_size=3), chunk_size=96, stride=32, compiles=compiles
    )
    assert together(decoder, wanted) == expected


def test_what_is_taken_back_is_written_anew(model):
    prompt = [3 + (7 * place) % 60 for place in range(70)]
    decoder = Decoder(model, packed_cache(model))
    expected = decoder.prefill(prompt)
    decoder.cache.clear()
    decoder.prefill(prompt[:40])
    decoder.cache.mark()
    decoder.prefill([9] * 20)
    decoder.cache.clear(keep=40)
    # A GPU's products depend on the number of rows, and a key that differs may round to another of 8 bits.
    assert_close(decoder.prefill(prompt[40:]), expected, 1e-5 if runs_on_cpu() else 1e-3)


def test_a_stored_text_is_restored_as_it_is(model):
    prompt = [3 + (7 * place) % 60 for place in range(70)]
    decoder, other = (Decoder(model, packed_cache(model)) for _ in range(2))
    decoder.prefill(prompt[:40])
    decoder.cache.evaluate()
    decoder.cache.mark()
    stored = list(decoder.cache.stored(40))
    for array, described in zip(stored, decoder.cache.layout(40), strict=True):
        assert (array.shape, array.dtype) == (described.shape, described.dtype)
    other.cache.restore(40, stored)
    assert mx.array_equal(other.prefill(prompt[40:]), decoder.prefill(prompt[40:]))
