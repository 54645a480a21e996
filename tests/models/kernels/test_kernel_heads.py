"""The heads that the kernel for attention is compiled for, and how its threads share the work."""

from dataclasses import replace

import pytest

from metal_gen.models.kernels import heads as kernel_heads
from metal_gen.models.kernels.heads import Heads

HEADS = Heads(4, 2, 64, 64, gated=False, normed=True, window=None)


@pytest.mark.quick
def test_heads_that_the_kernel_is_not_made_for_are_known():
    for change in ({"head_dim": 80, "rotated": 80}, {"rotated": 48}, {"num_heads": 256}, {"head_dim": 512}):
        assert not replace(HEADS, **change).are_supported, change


@pytest.mark.quick
@pytest.mark.parametrize(("on_metal", "most_bytes"), [(True, 32 << 10), (False, 48 << 10)])
def test_groups_fit_the_memory_that_they_share(monkeypatch, on_metal, most_bytes):
    monkeypatch.setattr(kernel_heads, "runs_on_metal", lambda: on_metal)
    for queries in (1, 2, 4, 8, 16):
        for size in (32, 64, 128, 256):
            heads = replace(HEADS, num_heads=queries, num_kv_heads=1, head_dim=size, rotated=size)
            if heads.are_supported:
                assert heads.rows >= 1
                numbers = heads.rows * queries * size
                shares = max(kernel_heads.MOST_STRETCHES, heads.rows * queries * 2)
                assert 4 * (numbers + shares) <= most_bytes


@pytest.mark.quick
def test_lanes_hold_whole_loads_of_a_head_and_not_too_many_numbers():
    for queries in (1, 2, 3, 4, 5, 7, 8, 16, 32):
        for size in (32, 64, 128, 256):
            heads = replace(HEADS, num_heads=queries, num_kv_heads=1, head_dim=size, rotated=size)
            if heads.are_supported:
                for number_bytes in (2, 4):
                    numbers = heads.numbers_of_lane(number_bytes)
                    assert size // 32 <= numbers <= size
                    assert numbers.bit_count() == 1
                    assert queries * numbers <= 64
                    assert number_bytes * numbers <= max(16, number_bytes * size // 32)


@pytest.mark.quick
def test_a_cache_is_parted_for_a_large_gpu_but_not_into_too_many_stretches(monkeypatch):
    monkeypatch.setattr(kernel_heads, "runs_on_metal", lambda: False)
    # Heads of Qwen3-8B, Qwen3-0.6B and Qwen3.5-35B-A3B.
    heavy = Heads(32, 8, 128, 128, gated=False, normed=True, window=None)
    light = replace(heavy, num_heads=16)
    few = Heads(16, 2, 256, 64, gated=True, normed=True, window=None)
    assert [heads.stretches(128, 1) for heads in (heavy, light, few)] == [1, 1, 1]
    assert [heads.stretches(8192, 1) for heads in (heavy, light, few)] == [16, 32, 128]
    assert [heavy.stretches(8192, batch) for batch in (2, 8, 32)] == [8, 2, 2]
    monkeypatch.setattr(kernel_heads, "runs_on_metal", lambda: True)
    assert few.stretches(8192, 1) == 8
