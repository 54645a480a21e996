"""Models with linear attention: one state after another is what all tokens at once are, and can be left.

That their logits are right is a matter of the golden files.
"""

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import LINEAR_ATTENTION, hybrid_configs, tiny_config, write_checkpoint
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.cached_text import CachedText
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import generate_tokens
from metal_gen.errors import CheckpointError
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.sampling.logits_error import LogitsError
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import Greedy

pytestmark = pytest.mark.metal

CONFIGS = dict(hybrid_configs())
TEXT = [(7 * place * place + 3 * place) % 64 for place in range(150)]


@pytest.fixture(scope="module", params=["qwen3_next-untied", "qwen3_5-untied"])
def model(request, tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp(request.param), CONFIGS[request.param])
    return Checkpoint(folder).weights.load("float32")


def assert_close(a, b):
    a, b = np.array(a), np.array(b)
    assert np.abs(a - b).max() <= 2e-5 * np.abs(b).max()


@pytest.mark.parametrize("chunk_size", [1, 70])
def test_chunked_prefill_equals_whole(model, make_cache, chunk_size):
    whole = Decoder(model, make_cache(model, max_seq_len=150)).prefill(TEXT)
    cache = make_cache(model, max_seq_len=150)
    assert_close(Decoder(model, cache, chunk_size=chunk_size).prefill(TEXT), whole)
    assert cache.nbytes == cache.config.nbytes - cache.config.num_states * cache.config.state_nbytes
    assert len(cache.buffers) == 2  # Of four layers one has keys and values.


def test_steps_can_be_taken_back(model, make_cache):
    decoder = Decoder(model, make_cache(model, max_seq_len=150))
    decoder.prefill(TEXT[:9])
    decoder.cache.mark()
    first = decoder.step(mx.array([5]))
    decoder.cache.take_back(1)
    assert_close(decoder.step(mx.array([5])), first)
    decoder.step(mx.array([6]))
    with pytest.raises(ValueError, match="the states after 7 tokens have not been kept"):
        decoder.cache.take_back(4)
    assert decoder.cache.position == 11
    decoder.cache.take_back(2)
    assert decoder.cache.position == 9
    assert_close(decoder.step(mx.array([5])), first)


def test_the_compiled_step_is_the_plain_one(model, make_cache):
    mx.disable_compile()  # On a CPU it calls a C++ compiler.
    try:
        plain = Decoder(model, make_cache(model, max_seq_len=40))
        compiled = Decoder(model, make_cache(model, max_seq_len=40), compiles=True)
        sampler = Sampler(Greedy(), RandomKeys(0), prompt=TEXT[:9], capacity=40)
        for decoder in (plain, compiled):
            decoder.prefill(TEXT[:9])
            decoder.cache.mark()
        for index, token in enumerate((5, 6, 7)):
            drawn = compiled.draw_next(mx.array([token]), sampler, index)
            assert_close(drawn.logits, plain.step(mx.array([token])))
        # What is kept to go back to is not what the step has changed.
        for decoder in (plain, compiled):
            decoder.cache.take_back(3)
        assert_close(compiled.draw_next(mx.array([8]), sampler, 0).logits, plain.step(mx.array([8])))
    finally:
        mx.enable_compile()


def test_a_state_that_overflows_is_an_error_that_names_the_step(model, make_cache):
    decoder = Decoder(model, make_cache(model, max_seq_len=40))
    sampler = Sampler(Greedy(), RandomKeys(0), prompt=TEXT[:9], capacity=40)
    tokens = generate_tokens(decoder, decoder.prefill(TEXT[:9]), sampler, endings={}, max_tokens=9)
    next(tokens)
    decoder.cache.state_arrays = [array + mx.inf for array in decoder.cache.state_arrays]
    # The second token has been drawn by then, and the third is being computed.
    with pytest.raises(LogitsError, match=r"no token can be chosen at new token [34]"):
        list(tokens)


def test_what_is_left_can_be_reached(model, make_cache):
    cache = make_cache(model, max_seq_len=150)
    decoder = Decoder(model, cache)
    decoder.prefill(TEXT[:9])
    cache.mark()
    for token in (1, 2, 3):
        decoder.step(mx.array([token]))
    assert [cache.reachable(position) for position in (20, 12, 11, 10, 9, 8)] == [12, 12, 11, 9, 9, 0]
    cache.take_back(3)
    decoder.step(mx.array([9]))
    # What came after the marked place is another text now.
    assert [cache.reachable(position) for position in (11, 10, 9, 8)] == [10, 10, 9, 0]


def test_a_conversation_goes_on_from_its_last_prompt(model, make_cache):
    decoder = Decoder(model, make_cache(model, max_seq_len=150))
    text = CachedText(decoder)
    assert text.begin(TEXT[:80]) == 0
    text.prefill()
    for token in (1, 2, 3):
        decoder.step(mx.array([token]))
        text.add(token)
    longer = [*TEXT[:80], 1, 7, *TEXT[80:90]]
    assert text.begin(longer) == 80
    logits = text.prefill()
    assert_close(logits, Decoder(model, make_cache(model, max_seq_len=150)).prefill(longer))
    assert text.begin(TEXT[:70]) == 0


def as_mlx_lm(folder):
    path = folder / "model.safetensors"
    weights = load_file(path)
    for name, array in weights.items():
        if name.endswith("conv1d.weight"):
            weights[name] = np.ascontiguousarray(np.moveaxis(array, 2, 1))
        elif name.endswith("norm.weight") and "linear_attn" not in name:
            weights[name] = array + 1
    save_file(weights, path)


def test_weights_that_mlx_lm_has_converted_are_the_same_model(model, make_cache, tmp_path):
    name = "qwen3_next-untied" if model.config.model_type == "qwen3_next" else "qwen3_5-untied"
    as_mlx_lm(write_checkpoint(tmp_path, CONFIGS[name]))
    converted = Checkpoint(tmp_path).weights.load("float32")
    found = [Decoder(each, make_cache(each)).prefill(TEXT[:9]) for each in (converted, model)]
    assert_close(*found)


def test_texts_of_one_prompt_are_those_of_separate_runs(tmp_path):
    """With weights and states that another thread has made."""
    folder = write_text_checkpoint(
        tmp_path, model_type="qwen3_5_text", **LINEAR_ATTENTION, partial_rotary_factor=0.5
    )
    model = metal_gen.load(str(folder), max_seq_len=96, temperature=1.5, top_p=0.99, max_tokens=40)
    samples = list(metal_gen.generate_samples(model, "abc", 3, seed=4))
    assert len({sample.text for sample in samples}) == 3
    again = metal_gen.load(str(folder), max_seq_len=96, temperature=1.5, top_p=0.99, max_tokens=40)
    assert metal_gen.generate(again, "abc", seed=4).text == samples[0].text
    assert [each.text for each in metal_gen.generate_samples(again, "abc", 3, seed=4)] == [
        each.text for each in samples
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linear_num_value_heads": 3}, "3 value heads cannot share 2 key heads of linear attention evenly"),
        ({"linear_key_head_dim": None}, "linear_key_head_dim is missing"),
        ({"attn_output_gate": False}, "attn_output_gate is False"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types has 'sliding_attention'"),
        ({"layer_types": ["linear_attention"] * 4}, "layer_types has no full_attention"),
        ({"model_type": "qwen3", "layer_types": ["linear_attention"] * 4}, "layer_types has 'linear_atten"),
    ],
)
def test_fields_that_cannot_be_meant(changes, message):
    config = tiny_config("qwen3_next", partial_rotary_factor=1.0)
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_hf({**config, **changes})
    assert message in caught.value.message


def test_kinds_and_sizes_that_are_implied():
    config = tiny_config("qwen3_5_text", num_hidden_layers=8)
    read = ModelConfig.from_hf(config)
    assert (read.num_cached_layers, read.num_linear_layers) == (2, 6)
    assert ModelConfig.from_hf({**config, "full_attention_interval": 2}).num_cached_layers == 4
    assert read.rope.partial_rotary_factor == 0.25
    assert (
        ModelConfig.from_hf(
            {**config, "mtp_num_hidden_layers": 1, "num_nextn_predict_layers": 1}
        ).unknown_fields
        == ()
    )
