"""The pass over guesses gives what single steps give, whatever part of the cache it reads."""

import mlx.core as mx
import numpy as np
import pytest
from tiny_checkpoint import hybrid_configs, tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine import rows_pass
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.rows_pass import run_rows

pytestmark = pytest.mark.metal

CONFIGS = {
    "dense": tiny_config("qwen3"),
    "window": tiny_config("qwen2", use_sliding_window=True, sliding_window=9, max_window_layers=0),
    "hybrid": dict(hybrid_configs())["qwen3_5-untied"],
}
TOKENS = [9, 8, 7, 6, 5]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("prompt_tokens", [3, 250, 258])
def test_rows_give_what_steps_give(tmp_path, make_cache, name, prompt_tokens):
    model = Checkpoint(write_checkpoint(tmp_path, CONFIGS[name])).weights.load("float32")
    prompt = [3 + place * place % 50 for place in range(prompt_tokens)]
    stepwise = Decoder(model, make_cache(model, max_seq_len=270))
    stepwise.prefill(prompt)
    expected = np.concatenate([stepwise.step(mx.array([token])) for token in TOKENS])
    for in_stretches in (True, False):
        decoder = Decoder(model, make_cache(model, max_seq_len=270))
        decoder.prefill(prompt)
        hidden = run_rows(model, mx.array(TOKENS), decoder.cache, in_stretches=in_stretches)
        np.testing.assert_allclose(model.logits(hidden), expected, atol=2e-4)
        np.testing.assert_allclose(decoder.step(mx.array([4])), stepwise.step(mx.array([4])), atol=2e-4)
        stepwise.cache.take_back(1)


@pytest.mark.parametrize("in_stretches", [True, False])
@pytest.mark.parametrize("compiles", [None, True, False])
def test_known_tokens_give_what_steps_give(tmp_path, make_cache, monkeypatch, in_stretches, compiles):
    monkeypatch.setattr(rows_pass, "runs_on_cuda", lambda: in_stretches)
    model = Checkpoint(write_checkpoint(tmp_path, CONFIGS["dense"])).weights.load("float32")
    stepwise, decoder = (
        Decoder(model, make_cache(model, max_seq_len=270), compiles=each) for each in (False, True)
    )
    for each in (stepwise, decoder):
        each.prefill([3, 1, 4])
    [*_, expected] = [stepwise.step(mx.array([token])) for token in TOKENS]
    assert decoder.can_compile(len(TOKENS), decoder.cache.position)
    np.testing.assert_allclose(decoder.extend(TOKENS, compiles=compiles), expected, atol=2e-4)
    assert decoder.compiled_rows.count == (compiles is True)
    assert decoder.cache.position == stepwise.cache.position
    assert not decoder.can_compile(66, decoder.cache.position)
