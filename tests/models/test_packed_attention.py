"""Tests attention over keys and values in 8 bits: it equals attention over what the numbers stand for."""

import mlx.core as mx
import numpy as np
import pytest
from quantized_checkpoint import array_strides

from metal_gen.cache.forms import PackedForm
from metal_gen.cache.packed_heads import PackedHeads
from metal_gen.models import packed_attention as packed_attention_module
from metal_gen.models.masks import seen_by
from metal_gen.models.packed_attention import MOST_PACKED_TOKENS, STRETCH, packed_attention

pytestmark = pytest.mark.metal

KV_HEADS, COUNT = 2, 70
SIZES = [64, 128, 256]


def random(*shape, seed=0):
    return mx.random.normal(shape, key=mx.random.key(seed))


def held(size, batch=1, count=COUNT):
    """Keys and values as a cache holds them: beginnings of larger buffers."""
    form = PackedForm(KV_HEADS, size)
    keys, values = (random(batch, KV_HEADS, count + 9, size, seed=seed) for seed in (1, 2))
    return form.decode([array[:, :, :count] for array in form.encode(keys, values)])


def reference(queries, keys, values, scale, mask):
    unpacked = [heads.unpacked(mx.float32) for heads in (keys, values)]
    return mx.fast.scaled_dot_product_attention(queries, *unpacked, scale=scale, mask=mask)


def assert_close(made, expected):
    np.testing.assert_allclose(np.array(made), np.array(expected), atol=2e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize("length", [1, 5, MOST_PACKED_TOKENS + 1])
def test_it_equals_attention_over_the_unpacked_numbers(size, repeats, length):
    keys, values = held(size)
    queries = random(1, KV_HEADS * repeats, length, size)
    mask = "causal" if length > 1 else None
    made = packed_attention(queries, keys, values, 0.2, mask)
    assert_close(made, reference(queries, keys, values, 0.2, mask))


def test_a_head_of_one_group_is_halved_for_cuda(monkeypatch):
    """Imitate CUDA, where MLX's kernel for Hopper fails for a single group."""
    product, sizes = mx.quantized_matmul, []

    def noted(rows, numbers, scales, biases, *, transpose, group_size, bits):
        if transpose:
            sizes.append((scales.shape[-1], group_size))
            assert array_strides(scales)[-2:] == (2, 1)
        return product(rows, numbers, scales, biases, transpose=transpose, group_size=group_size, bits=bits)

    keys, values = held(64)
    queries = random(1, 2 * KV_HEADS, 1, 64)
    expected = reference(queries, keys, values, 0.2, None)
    monkeypatch.setattr(packed_attention_module, "runs_on_cuda", lambda: True)
    monkeypatch.setattr(mx, "quantized_matmul", noted)
    assert_close(packed_attention(queries, keys, values, 0.2, None), expected)
    assert sizes == [(2, 32)]


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("heads_in_mask", [1, 4])
def test_each_sequence_has_its_own_mask(window, heads_in_mask):
    keys, values = held(64, batch=3)
    queries = random(3, 4, 1, 64)
    full, sliding = seen_by(mx.array([3, 30, COUNT - 1]), mx.arange(COUNT), window)
    mask = sliding if window else full
    made = packed_attention(queries, keys, values, 0.2, mx.broadcast_to(mask, (3, heads_in_mask, 1, COUNT)))
    assert_close(made, reference(queries, keys, values, 0.2, mask))


@pytest.mark.parametrize("count", [STRETCH - 1, STRETCH, STRETCH + 1, 3 * STRETCH, 3 * STRETCH + 70])
def test_values_are_added_up_in_stretches(count):
    keys, values = held(64, batch=2, count=count)
    queries = random(2, KV_HEADS * 4, 1, 64)
    mask = mx.arange(count) < count - 5
    made = packed_attention(queries, keys, values, 0.2, mask[None])
    assert_close(made, reference(queries, keys, values, 0.2, mask[None]))


def test_numbers_are_off_by_one_step_at_most():
    form = PackedForm(KV_HEADS, 128)
    keys, values = random(2, KV_HEADS, 9, 128), 100 * random(2, KV_HEADS, 9, 128, seed=1)
    for heads, packed in zip((keys, values), form.decode(form.encode(keys, values)), strict=True):
        assert packed.shape == heads.shape
        groups = heads.reshape(*heads.shape[:-1], -1, 64)
        step = (groups.max(-1, keepdims=True) - groups.min(-1, keepdims=True)) / 255
        off = mx.abs(packed.unpacked(mx.float32).reshape(groups.shape) - groups)
        assert (off <= 1.01 * step).all().item()


def test_large_scores_are_as_exact_as_in_float32():
    """Qwen2's keys have biases of hundreds: half precision rounds such scores to whole numbers."""
    keys, values = held(64)
    queries = (40 * random(1, KV_HEADS, 1, 64)).astype(mx.bfloat16)
    made = packed_attention(queries, keys, values, 1.0, None)
    assert_close(made, reference(queries.astype(mx.float32), keys, values, 1.0, None))


def test_the_beginnings_of_a_text_are_unpacked_once(monkeypatch):
    """From the longest on; other sequences, and stretches that begin later, are their own."""
    calls, unpack = [], PackedHeads._in_float32
    monkeypatch.setattr(PackedHeads, "_in_float32", lambda heads: calls.append(0) or unpack(heads))
    keys, _ = held(64, batch=2)
    whole = mx.dequantize(*keys.arrays, group_size=64, bits=8)
    for length in (60, 40, 60):
        assert mx.array_equal(keys[0:1, :, :length].unpacked(mx.float32), whole[:1, :, :length])
    assert len(calls) == 1
    assert mx.array_equal(keys[1:2, :, :40].unpacked(mx.float32), whole[1:, :, :40])
    assert mx.array_equal(keys[0:1, :, :60][:, :, -5:].unpacked(mx.float32), whole[:1, :, 55:60])
    assert mx.array_equal(keys[0:1, :, :70].unpacked(mx.float32), whole[:1, :, :70])
    assert len(calls) == 4
