"""Tests that a step reads a part of the cache that its position decides, however large the cache is."""

import mlx.core as mx
import pytest
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.read_lengths import attended_length
from metal_gen.models.cache_size import cache_size

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

PROMPT = [3 + (7 * place) % 60 for place in range(300)]
CAPACITY = 1200


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp("model"), tiny_config("qwen3", head_dim=64))
    return Checkpoint(folder).weights.load("float32")


@pytest.mark.parametrize("dtype", ["float32", "q8"])
@pytest.mark.parametrize("compiles", [False, True])
def test_what_lies_beyond_is_not_read(model, dtype, compiles):
    """What is not a number there would make the logits so, even where a mask gives it no weight."""
    reach = attended_length(len(PROMPT) + 1, CAPACITY) if compiles else len(PROMPT) + 1

    def logits(poisoned_from):
        cache = new_cache(cache_size(model.config, max_seq_len=CAPACITY, dtype=dtype))
        decoder = Decoder(model, cache, compiles=compiles)
        mx.eval(decoder.prefill(PROMPT))
        for buffer in cache.buffers:
            if poisoned_from is not None and buffer.dtype == mx.float32:
                buffer[:, :, poisoned_from:] = mx.nan
        cache.evaluate()
        return decoder.step(mx.array([5]))

    assert mx.array_equal(logits(reach), logits(None))
    assert mx.isnan(logits(len(PROMPT) - 1)).all()
