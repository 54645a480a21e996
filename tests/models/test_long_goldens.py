"""What the fused attention kernels of a GPU compute equals transformers, past 1,024 and 4,096 tokens."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from long_goldens import NEW_TOKENS, long_goldens, long_prompt
from tiny_checkpoint import write_checkpoint

from metal_gen.cache.kv_cache import KVCache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.device.backend import preferred_chunk_size, runs_on_cpu
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import read_draw
from metal_gen.generation.memory.planning import cache_config
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy

pytestmark = pytest.mark.metal

GOLDENS = {name: (config, length) for name, config, length in long_goldens()}
TOLERANCE = 1e-4
# Of the cache, so that it is read as a part of a longer buffer.
BEYOND = 100


@pytest.fixture(scope="module")
def goldens():
    return mx.load(str(Path(__file__).parents[1] / "data" / "golden_long.safetensors"))


def test_the_golden_file_has_every_configuration(goldens):
    assert {name.rsplit(".", 1)[0] for name in goldens} == set(GOLDENS)


@pytest.mark.parametrize("compiles", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("name", GOLDENS)
def test_every_new_token_equals_transformers(name, compiles, goldens, tmp_path):
    if compiles and runs_on_cpu():
        pytest.skip("a CPU calls a C++ compiler, for seconds")
    config, length = GOLDENS[name]
    checkpoint = Checkpoint(write_checkpoint(tmp_path, config))
    model = checkpoint.weights.load("float32")
    settings = Settings(max_seq_len=length + NEW_TOKENS + BEYOND)
    cache = KVCache(cache_config(settings, checkpoint.config, "float32"))
    decoder = Decoder(model, cache, chunk_size=preferred_chunk_size(), compiles=compiles)
    prompt = long_prompt(length)
    sampler = Sampler(Greedy(), RandomKeys(0), prompt=prompt, capacity=cache.config.max_seq_len)
    draw = sampler.draw(decoder.prefill(prompt), 0)
    logits, ids = [draw.logits], [read_draw(draw)[0]]
    for index in range(1, NEW_TOKENS):
        sampler.accept(draw)
        draw = decoder.draw_next(draw.token, sampler, index)
        logits.append(draw.logits)
        ids.append(read_draw(draw)[0])
    expected = np.array(goldens[f"{name}.logits"])
    assert np.abs(np.array(mx.concatenate(logits)) - expected).max() <= TOLERANCE * np.abs(expected).max()
    assert ids == goldens[f"{name}.greedy"].tolist()
