"""Tests that logits and greedy text equal those of transformers for the same weights."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny_checkpoint import GREEDY_TOKENS, PROMPT, golden_configs, write_checkpoint

from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import generate_tokens
from metal_gen.generation.loading import cache_config
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy

pytestmark = pytest.mark.metal

CONFIGS = dict(golden_configs())
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def goldens():
    return mx.load(str(Path(__file__).parents[1] / "data" / "golden_logits.safetensors"))


def test_the_golden_file_covers_the_matrix(goldens):
    assert {name.rsplit(".", 1)[0] for name in goldens} == set(CONFIGS)
    assert len(CONFIGS) >= 216


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_greedy_ids_equal_transformers(name, goldens, tmp_path):
    checkpoint = Checkpoint(write_checkpoint(tmp_path, CONFIGS[name]))
    model = checkpoint.weights.load("float32")
    settings = Settings(max_seq_len=len(PROMPT) + GREEDY_TOKENS)
    cache = new_cache(cache_config(settings, checkpoint.config, "float32"))
    expected = np.array(goldens[f"{name}.logits"])
    logits = np.array(model.logits(model(mx.array([PROMPT]), cache))[0])
    assert np.abs(logits - expected).max() <= TOLERANCE * np.abs(expected).max()

    cache.clear()
    decoder = Decoder(model, cache)
    sampler = Sampler(Greedy(), RandomKeys(0), prompt=PROMPT, capacity=cache.config.max_seq_len)
    tokens = generate_tokens(decoder, decoder.prefill(PROMPT), sampler, endings={}, max_tokens=GREEDY_TOKENS)
    assert [token.id for token in tokens] == goldens[f"{name}.greedy"].tolist()
