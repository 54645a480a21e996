"""Tests the KV cache: exact size, fixed buffers, exact fit, and refusal of one step more."""

import mlx.core as mx
import numpy as np
import pytest
from peak_memory import in_use

from metal_gen.cache.config import KVCacheConfig
from metal_gen.cache.kv_cache import CacheOverflowError, KVCache
from metal_gen.device.buffer_cache import clear_buffer_cache
from metal_gen.device.extra_memory import wait_for_release
from metal_gen.errors import DoesNotFitError

pytestmark = pytest.mark.metal


def config(**changes):
    sizes = {"num_layers": 3, "num_kv_heads": 2, "head_dim": 8, "max_seq_len": 16, "dtype": "float32"}
    return KVCacheConfig(**{**sizes, **changes})


def block(cache, length, value=1.0):
    return mx.full((1, cache.config.num_kv_heads, length, cache.config.head_dim), value)


def test_qwen25_05b_takes_24_mib_for_2048_tokens_in_float16():
    size = KVCacheConfig(num_layers=24, num_kv_heads=2, head_dim=64, max_seq_len=2048, dtype="float16")
    assert size.nbytes == 25_165_824
    assert size.bytes_per_token == 12 * 1024


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_allocated_bytes_equal_the_formula(dtype, batch_size):
    size = config(dtype=dtype, batch_size=batch_size)
    before = in_use()
    cache = KVCache(size)
    assert cache.nbytes == size.nbytes
    # The allocator may round each buffer up to a page.
    assert 0 <= in_use() - before - size.nbytes <= 2 * 3 * 16384


def test_every_layer_fills_to_exactly_max_seq_len():
    cache = KVCache(config())
    for step in range(16):
        cache.claim(1)
        for layer in range(3):
            keys, values = cache.update(layer, block(cache, 1, step), block(cache, 1, -step))
    assert (cache.position, cache.remaining) == (16, 0)
    assert keys.shape == (1, 2, 16, 8)
    assert np.array_equal(np.array(keys[0, 0, :, 0]), np.arange(16))
    assert np.array_equal(np.array(values[0, 1, :, 7]), -np.arange(16))


def test_overflow_is_refused_before_anything_is_written():
    cache = KVCache(config())
    cache.claim(15)
    with pytest.raises(CacheOverflowError) as caught:
        cache.claim(2)
    assert (caught.value.position, caught.value.length, caught.value.max_seq_len) == (15, 2, 16)
    assert "max_seq_len" in caught.value.hint
    assert cache.position == 15
    cache.claim(1)
    assert cache.position == 16


def test_clear_reuses_the_buffers():
    cache = KVCache(config())
    cache.claim(4)
    for layer in range(3):
        cache.update(layer, block(cache, 4), block(cache, 4))
    cache.evaluate()
    before = mx.get_active_memory()
    cache.clear()
    assert cache.position == 0
    cache.claim(2)
    keys, _ = cache.update(0, block(cache, 2, 5.0), block(cache, 2))
    cache.evaluate()
    assert keys.tolist() == mx.full((1, 2, 2, 8), 5.0).tolist()
    assert mx.get_active_memory() <= before + 4096


def test_a_new_text_may_keep_the_first_tokens():
    cache = KVCache(config())
    cache.claim(4)
    cache.update(0, block(cache, 4, 3.0), block(cache, 4))
    cache.clear(keep=3)
    assert (cache.position, cache.texts) == (3, 1)
    cache.claim(1)
    keys, _ = cache.update(0, block(cache, 1, 5.0), block(cache, 1))
    assert keys[0, 0, :, 0].tolist() == [3.0, 3.0, 3.0, 5.0]
    with pytest.raises(ValueError, match="cannot take back"):
        cache.clear(keep=5)


def test_keys_are_stored_in_the_cache_dtype():
    cache = KVCache(config(dtype="bfloat16"))
    cache.claim(1)
    keys, values = cache.update(0, block(cache, 1), block(cache, 1))
    assert keys.dtype == values.dtype == mx.bfloat16


@pytest.mark.parametrize("name", ["num_layers", "num_kv_heads", "head_dim", "max_seq_len", "batch_size"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(DoesNotFitError, match=name):
        config(**{name: 0})


def test_an_unknown_dtype_is_refused():
    with pytest.raises(DoesNotFitError, match="int8"):
        config(dtype="int8")


def test_decoding_copies_no_buffer(tiny_model, make_cache):
    """Peak memory while decoding stays below one more buffer of this large cache."""
    cache = make_cache(tiny_model, max_seq_len=65536)
    one_buffer = cache.nbytes // (2 * tiny_model.config.num_hidden_layers)
    mx.eval(tiny_model.logits(tiny_model(mx.array([[1, 2, 3]]), cache)))
    mx.reset_peak_memory()
    start = mx.get_active_memory()
    token = mx.array([[4]])
    for _ in range(20):
        token = mx.argmax(tiny_model.logits(tiny_model(token, cache)[:, -1]), axis=-1)[:, None]
        mx.async_eval(token)
        token.tolist()
        wait_for_release()
    assert mx.get_peak_memory() - start < one_buffer / 2


def test_filling_all_of_it_at_once_copies_no_buffer():
    cache = KVCache(config(max_seq_len=4096))
    cache.claim(4096)
    new = [block(cache, 4096, float(layer)) for layer in range(3)]
    mx.eval(new)
    clear_buffer_cache()
    start = mx.get_active_memory()
    mx.reset_peak_memory()
    for layer in range(3):
        cache.update(layer, new[layer], new[layer])
    cache.evaluate()
    assert mx.get_peak_memory() - start < cache.nbytes // 6
    assert mx.get_active_memory() - start < cache.nbytes // 6
    mx.eval(new)
    assert mx.array_equal(cache.buffers[5], new[2]).item()
