"""Tests the rotary embedding of many sequences, whose narrow heads MLX's CUDA kernel cannot take at once."""

import mlx.core as mx
import numpy as np
import pytest

from metal_gen.models import rope
from metal_gen.models.config.rope import RopeConfig
from metal_gen.models.rope import Rope

pytestmark = pytest.mark.metal

HEAD_DIM = 64


def block_depth(x, rotated):
    """Return the depth of a block of MLX's CUDA kernel: `get_block_dims_common` in its source."""
    counts = rotated // 2, x.shape[2], x.shape[0] * -(-x.shape[1] // 4)
    powers, free = [0, 0, 0], 10
    while free:
        grown = [axis for axis, count in enumerate(counts) if count >= 2 ** (powers[axis] + 1)]
        if not grown:
            break
        for axis in grown[:free]:
            powers[axis] += 1
        free -= len(grown[:free])
    return 2 ** powers[2]


@pytest.mark.parametrize("rotated", [4, 8, 16, 30, 32, 64])
@pytest.mark.parametrize(("sequences", "heads"), [(1, 6), (63, 6), (64, 6), (130, 6), (127, 1), (400, 9)])
def test_many_sequences_are_rotated_as_each_alone(monkeypatch, rotated, sequences, heads):
    monkeypatch.setattr(rope, "runs_on_cuda", lambda: True)
    rotate = mx.fast.rope
    depths = []

    def noted(x, dims, **others):
        depths.append(block_depth(x, dims))
        return rotate(x, dims, **others)

    monkeypatch.setattr(mx.fast, "rope", noted)
    config = RopeConfig(rope_theta=10_000.0, partial_rotary_factor=rotated / HEAD_DIM)
    embedding = Rope(config, HEAD_DIM)
    assert embedding.rotated == rotated
    x = mx.random.normal((sequences, heads, 1, HEAD_DIM), key=mx.random.key(0))
    starts = mx.arange(sequences) * 7 % 61
    periods = embedding.periods(64)
    together = np.array(embedding(x, starts, periods))
    assert max(depths) <= 64
    for number in {0, sequences // 2, sequences - 1}:
        alone = embedding(x[number : number + 1], int(starts[number]), periods)
        np.testing.assert_allclose(together[number], np.array(alone[0]), atol=1e-5)
