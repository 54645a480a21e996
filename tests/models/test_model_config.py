"""Tests the spellings of config.json, and the fields that are refused rather than ignored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoint import tiny_config

from metal_gen.config.rope_scaling import RopeScaling
from metal_gen.errors import CheckpointError
from metal_gen.models.config.fields import listed
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.config.summary import ConfigSummary
from metal_gen.models.rope import Rope

NUMBERS = st.sampled_from([1e-320, 1e-12, 1e-3, 1, 1.5, 1e4, 1e12, 1e300]) | st.floats(1e-12, 1e12)


def read(**changes):
    config = tiny_config("qwen2", **changes)
    return ModelConfig.from_hf({name: value for name, value in config.items() if value is not ...})


def test_rope_theta_in_either_place():
    assert read(rope_theta=5e5).rope.rope_theta == 5e5
    assert (
        read(rope_theta=..., rope_parameters={"rope_type": "default", "rope_theta": 5e5}).rope.rope_theta
        == 5e5
    )
    assert read(rope_theta=1.0, rope_parameters={"rope_theta": 5e5}).rope.rope_theta == 5e5
    assert read(rope_theta=...).rope.rope_theta == 10000.0


@pytest.mark.parametrize("key", ["type", "rope_type"])
@pytest.mark.parametrize("field", ["rope_scaling", "rope_parameters"])
def test_rope_scaling_in_either_spelling(key, field):
    rope = read(**{field: {key: "linear", "factor": 4}}).rope
    assert (rope.rope_type, rope.factor, rope.rope_theta) == ("linear", 4.0, 10000.0)


def test_yarn_knows_the_trained_length():
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    config = read(rope_scaling=yarn, max_position_embeddings=40960)
    assert config.rope.original_max_position_embeddings == 32768
    assert config.context_length == 131072
    implied = read(rope_scaling={**yarn, "factor": None}, max_position_embeddings=65536)
    assert implied.rope.factor == 2.0


def test_a_setting_overrides_the_checkpoints_scaling():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    setting = RopeScaling()({"type": "yarn", "factor": 2})
    plain = tiny_config("qwen3", rope_theta=1e6, max_position_embeddings=40960)
    written = {**plain, "rope_scaling": yarn}
    assert ModelConfig.from_hf(plain, rope_scaling=RopeScaling()(yarn)) == ModelConfig.from_hf(written)
    both = ModelConfig.from_hf(written, rope_scaling=setting).rope
    assert (both.factor, both.original_max_position_embeddings, both.rope_theta) == (2.0, 32768, 1e6)
    outside = {**written, "original_max_position_embeddings": 16}
    assert ModelConfig.from_hf(outside, rope_scaling=setting).rope.original_max_position_embeddings == 16
    whole = ModelConfig.from_hf(outside, rope_scaling=tuple(yarn.items())).rope
    assert whole.original_max_position_embeddings == 32768
    off = ModelConfig.from_hf(written, rope_scaling=RopeScaling()({"rope_type": "default"}))
    assert off == ModelConfig.from_hf(plain)


def test_head_dim_is_explicit_or_implied():
    assert read(head_dim=64).head_dim == 64
    assert read(head_dim=...).head_dim == 8
    qwen3 = tiny_config("qwen3")
    del qwen3["head_dim"]
    assert ModelConfig.from_hf(qwen3).head_dim == 128


def test_kv_heads_default_to_query_heads():
    assert read(num_key_value_heads=...).num_key_value_heads == 4


def test_a_sliding_window_counts_only_when_in_use():
    idle = read(use_sliding_window=False, sliding_window=8, max_window_layers=0)
    assert idle.sliding_window is None
    assert set(idle.layer_types) == {"full_attention"}
    used = read(use_sliding_window=True, sliding_window=8, max_window_layers=1)
    assert used.sliding_window == 8
    assert used.layer_types == ("full_attention", "sliding_attention")


def test_unknown_fields_are_listed():
    assert read(novel_field=1, transformers_version="5").unknown_fields == ("novel_field",)


def test_many_unknown_fields_are_shortened():
    names = read(**{f"novel_{index:03}": 1 for index in range(500)}, **{"x" * 10_000: 1}).unknown_fields
    assert listed(names[:2]) == "novel_000, novel_001"
    assert listed(names).endswith("novel_011 and 489 more")
    assert len(listed(names[::-1])) < 300


@pytest.mark.parametrize(
    ("parameters", "unknown"),
    [
        ({"rope_type": "yarn", "factor": 4, "attn_factor": 1.5}, ["attn_factor"]),
        ({"rope_type": "yarn", "factor": 4, "attention_factor": 1.5, "beta_fast": 16, "mscale": 1}, []),
        ({"rope_type": "linear", "factor": 4, "attention_factor": 1.5}, ["attention_factor"]),
        ({"rope_type": "default", "factor": 4, "mrope_section": [8, 4, 4]}, ["factor"]),
        ({"rope_theta": 1e6, "mrope_interleaved": True, "original_max_position_embeddings": 16}, []),
    ],
)
def test_unused_rope_fields_are_listed(parameters, unknown):
    names = tuple(f"rope_parameters.{name}" for name in unknown)
    assert read(rope_parameters=parameters).unknown_fields == names
    assert read(rope_scaling=parameters).unknown_fields == names


def test_a_rope_setting_silences_unused_rope_fields():
    config = tiny_config("qwen3", rope_scaling={"rope_type": "yarn", "factor": 4, "beta_fast": 16})
    off = RopeScaling()({"rope_type": "default"})
    assert ModelConfig.from_hf(config, rope_scaling=off).unknown_fields == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": ...}, "hidden_size is missing"),
        ({"hidden_size": "32"}, "hidden_size must be a whole number of at least 1, not '32'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number"),
        ({"num_hidden_layers": 2**31 - 1}, "num_hidden_layers must be a whole number from 1 to 10,000"),
        ({"layer_types": ["x" * 10_000] * 2}, "and that kind of attention is not supported"),
        ({"num_attention_heads": True}, "num_attention_heads must be a whole number"),
        ({"num_key_value_heads": 3}, "4 query heads cannot share 3 key/value heads evenly"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps must be a number from 1e-12 to 1e+12, not -1.0"),
        ({"rms_norm_eps": True}, "rms_norm_eps must be a number above 0, not True"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu', and only 'silu' is supported"),
        ({"use_mrope": True}, "use_mrope is True"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"head_dim": 1}, "1 of the 1 numbers of a head would be rotated, and only pairs can be"),
        ({"head_dim": 3}, "3 of the 3 numbers of a head would be rotated, and only pairs can be"),
        ({"hidden_size": 2, "head_dim": ...}, "head_dim must be a whole number of at least 1, not 0"),
        (
            {"head_dim": 2, "rope_scaling": {"type": "dynamic", "factor": 2}},
            "needs more than one pair of numbers",
        ),
        ({"rope_theta": 1, "rope_scaling": {"type": "yarn", "factor": 2}}, "needs a rope_theta other than 1"),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 1e-320}},
            "beta_fast must be a number from 1e-12 to 1e+12",
        ),
        ({"rope_theta": 1e-320}, "rope_theta must be a number from 1e-12 to 1e+12"),
        ({"rope_scaling": {"type": "llama3", "factor": 2}}, "rope_type 'llama3' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "rope_parameters cannot be used: factor is missing"),
        ({"rope_scaling": {"type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_theta": 1e6}},
            "it has both rope_scaling and rope_parameters",
        ),
        ({"rope_scaling": [1]}, "rope_parameters must be an object"),
        ({"rope_parameters": {"full_attention": {}}}, "rope_parameters differ by kind of attention"),
        ({"layer_types": ["full_attention"]}, "layer_types must list 2 layers"),
        ({"layer_types": ["full_attention", "mamba"]}, "layer_types has 'mamba'"),
        ({"layer_types": ["full_attention", ["full_attention"]]}, "layer_types has ['full_attention']"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "no sliding_window is in use"),
    ],
)
def test_unsupported_fields_are_refused(changes, message):
    with pytest.raises(CheckpointError) as caught:
        read(**changes)
    assert message in caught.value.message
    assert caught.value.message.startswith("config.json")
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(("partial", "rotated"), [(1e9, None), (1.1, None), (0.01, 0), (0.4, 13)])
def test_a_head_that_cannot_be_rotated_is_refused(partial, rotated):
    with pytest.raises(CheckpointError, match="rotat") as caught:
        ModelConfig.from_hf(tiny_config("qwen3_next", head_dim=33, partial_rotary_factor=partial))
    if rotated is not None:
        assert f"{rotated} of the 33 numbers" in caught.value.message


@given(
    head_dim=st.sampled_from([2, 4, 32]),
    rope_type=st.sampled_from(["default", "linear", "dynamic", "yarn"]),
    numbers=st.fixed_dictionaries(
        {"rope_theta": NUMBERS, "factor": NUMBERS, "beta_fast": NUMBERS, "beta_slow": NUMBERS}
    ),
    original=st.sampled_from([1, 16, 2**31 - 1]),
    length=st.sampled_from([1, 1000, 2**31 - 1]),
)
def test_accepted_configs_have_wavelengths(head_dim, rope_type, numbers, original, length):
    scaling = {"rope_type": rope_type, "original_max_position_embeddings": original, **numbers}
    try:
        config = read(head_dim=head_dim, rope_parameters=scaling, max_position_embeddings=original)
    except CheckpointError:
        return
    periods = Rope(config.rope, head_dim).periods(length).tolist()
    assert len(periods) == head_dim // 2
    assert all(period > 0 for period in periods)


def test_a_summary_is_short_for_any_file():
    long = "x" * 10_000
    quantization = {"quant_method": long, "bits": 10**90}
    summary = ConfigSummary.from_hf({"model_type": long, "dtype": long, "quantization": quantization})
    assert all(0 < len(text) < 300 for text in (summary.model_type, summary.dtype, summary.quantization))
