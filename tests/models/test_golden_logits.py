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
from metal_gen.generation.memory.planning import cache_config
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy

pytestmark = pytest.mark.metal

CONFIGS = dict(golden_configs())
TOLERANCE = 1e-4
# All but most of the matrix of sizes. Eleven has no factor in common with its sides.
GREEDY = [
    pytest.param(name, marks=pytest.mark.release if "-theta" in name and place % 11 else ())
    for place, name in enumerate(CONFIGS)
]


@pytest.fixture(scope="module")
def goldens():
    return mx.load(str(Path(__file__).parents[1] / "data" / "golden_logits.safetensors"))


def test_the_golden_file_covers_the_matrix(goldens):
    assert {name.rsplit(".", 1)[0] for name in goldens} == set(CONFIGS)
    assert len(CONFIGS) >= 216


def load(name, folder):
    """Load a configuration's model, and make a cache that holds the prompt and the greedy text."""
    checkpoint = Checkpoint(write_checkpoint(folder, CONFIGS[name]))
    settings = Settings(max_seq_len=len(PROMPT) + GREEDY_TOKENS)
    cache = new_cache(cache_config(settings, checkpoint.config, "float32"))
    return checkpoint.weights.load("float32"), cache


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_equal_transformers(name, goldens, tmp_path):
    model, cache = load(name, tmp_path)
    expected = np.array(goldens[f"{name}.logits"])
    logits = np.array(model.logits(model(mx.array([PROMPT]), cache))[0])
    assert np.abs(logits - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("name", GREEDY)
def test_greedy_ids_equal_transformers(name, goldens, tmp_path):
    model, cache = load(name, tmp_path)
    decoder = Decoder(model, cache)
    sampler = Sampler(Greedy(), RandomKeys(0), prompt=PROMPT, capacity=cache.config.max_seq_len)
    tokens = generate_tokens(decoder, decoder.prefill(PROMPT), sampler, endings={}, max_tokens=GREEDY_TOKENS)
    assert [token.id for token in tokens] == goldens[f"{name}.greedy"].tolist()
