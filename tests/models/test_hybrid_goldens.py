"""Linear attention with head sizes as published equals transformers, wherever chunks end."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from long_goldens import NEW_TOKENS, hybrid_goldens, long_prompt
from tiny_checkpoint import write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.slots.slot_decoder import SlotDecoder
from metal_gen.models.linear_attention import delta_rule
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy

pytestmark = pytest.mark.metal

GOLDENS = {name: (config, length) for name, config, length in hybrid_goldens()}
TOLERANCE = 1e-4
CAPACITY = 160


@pytest.fixture(scope="module")
def goldens():
    return mx.load(str(Path(__file__).parents[1] / "data" / "golden_hybrid.safetensors"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The model of each family; those of its lengths are the same."""
    return {
        name.rsplit("-", 1)[0]: Checkpoint(
            write_checkpoint(tmp_path_factory.mktemp(name), config)
        ).weights.load("float32")
        for name, (config, length) in GOLDENS.items()
        if length == 1
    }


@pytest.fixture(params=GOLDENS)
def golden(request, goldens, models):
    """A model, a prompt, and the logits and ids of the tokens after it."""
    name = request.param
    logits = np.array(goldens[f"{name}.logits"])
    ids = goldens[f"{name}.greedy"].tolist()
    return models[name.rsplit("-", 1)[0]], long_prompt(GOLDENS[name][1]), logits, ids


def assert_close(logits, expected):
    assert np.abs(np.array(logits) - expected).max() <= TOLERANCE * np.abs(expected).max()


def test_the_golden_file_has_every_configuration(goldens):
    assert {name.rsplit(".", 1)[0] for name in goldens} == set(GOLDENS)


@pytest.mark.parametrize("chunk_size", [512, 50])
def test_token_by_token_after_a_prompt_in_chunks(golden, make_cache, chunk_size):
    model, prompt, expected, ids = golden
    decoder = Decoder(model, make_cache(model, max_seq_len=CAPACITY), chunk_size=chunk_size)
    logits = [decoder.prefill(prompt), *(decoder.step(mx.array([token])) for token in ids[:-1])]
    assert_close(mx.concatenate(logits), expected)


@pytest.mark.parametrize("on_gpu", [False, True], ids=["CPU", "as on a GPU"])
def test_all_tokens_at_once(golden, make_cache, monkeypatch, on_gpu):
    if on_gpu:
        monkeypatch.setattr(delta_rule, "runs_on_cpu", lambda: False)
    model, prompt, expected, ids = golden
    hidden = model(mx.array([[*prompt, *ids[:-1]]]), make_cache(model, max_seq_len=CAPACITY))
    assert_close(model.logits(hidden[0, -NEW_TOKENS:]), expected)


def test_beside_another_text_in_slots(golden, make_cache):
    model, prompt, expected, ids = golden
    decoder = SlotDecoder(model, make_cache(model, max_seq_len=CAPACITY, batch_size=2), chunk_size=128)
    text, other = (
        decoder.begin(
            each,
            Sampler(Greedy(), RandomKeys(0), prompt=each, capacity=CAPACITY),
            endings={},
            max_tokens=NEW_TOKENS,
        )
        for each in (prompt, long_prompt(70)[::-1])
    )
    given = []
    while not text.is_over or not other.is_over:
        given += [token for each, token in decoder.step() if each is text]
    assert_close(mx.concatenate([token.draw.logits for token in given]), expected)
    assert [token.id for token in given] == ids
