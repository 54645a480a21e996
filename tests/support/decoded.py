"""Plain texts of a decoder, the variants of a tiny model that give them, and whether two results agree."""

import numpy as np
from tiny_checkpoint import EXPERTS

from metal_gen.engine.generator import generate_tokens
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler

PROMPT = [3, 1, 4, 1, 5]
CAPACITY = 40
VARIANTS = {
    "full": {},
    "sliding": {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8}},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 8},
    "experts": {"model_type": "qwen3_moe", **EXPERTS},
}


def assert_close(a, b, share=1e-5):
    """Check that arrays differ by at most this share of their largest number."""
    a, b = np.array(a), np.array(b)
    assert np.abs(a - b).max() <= share * np.abs(b).max()


def text(decoder, strategy, *, seed=0, logprobs=None, count=30):
    """Return the tokens that follow PROMPT."""
    decoder.cache.clear()
    sampler = Sampler(
        strategy,
        RandomKeys(seed),
        prompt=PROMPT,
        capacity=CAPACITY,
        ending_ids=[2],
        logprobs=logprobs,
    )
    logits = decoder.prefill(PROMPT)
    return list(generate_tokens(decoder, logits, sampler, endings={}, max_tokens=count))
