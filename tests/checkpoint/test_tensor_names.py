"""Tests tensor names of other programs, and tensors that are not needed here."""

import mlx.core as mx
import numpy as np
import pytest
from adapter_files import peft_tensors, random_factors, write_peft
from quantized_checkpoint import quantizable_config, quantize_with_mlx_lm
from tiny_checkpoint import tiny_config, tiny_weights, vision_language_configs, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.errors import CheckpointError
from metal_gen.models.matrices.quantized import Packing

TOKENS = mx.array([[1, 2, 3]])
TIED = tiny_config("qwen3", tie_word_embeddings=True)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def logits_of(make_cache):
    def compute(folder, *adapters):
        model = Checkpoint(folder, adapters=adapters).weights.load("float32")
        return np.array(model.logits(model(TOKENS, make_cache(model))))

    return compute


def without_model(name):
    """Rename parts as in a model that is saved without its head."""
    return name.removeprefix("model.")


@pytest.mark.parametrize(
    "config",
    [TIED, tiny_config("qwen2_moe"), dict(vision_language_configs())["qwen3_vl-tied"]],
    ids=["tied", "with a head", "vision-language"],
)
def test_a_model_saved_without_its_head_is_the_same_model(config, tmp_path, logits_of):
    weights = tiny_weights(config)
    bare = {without_model(name): array for name, array in weights.items()}
    assert bare.keys() != weights.keys()
    expected = logits_of(write_checkpoint(tmp_path / "named", config, weights))
    assert np.array_equal(logits_of(write_checkpoint(tmp_path / "bare", config, bare)), expected)


def test_adapters_and_packings_without_a_head_are_renamed_too(tmp_path, logits_of):
    config = quantizable_config("qwen3", tie_word_embeddings=True)
    name = "model.layers.1.mlp.down_proj"
    folder = quantize_with_mlx_lm(tmp_path, config, Packing(4, 64), lambda path, module: path != name)
    factors = random_factors({"layers.0.self_attn.v_proj": (128, 64)})
    adapter = write_peft(tmp_path / "adapter", peft_tensors(factors))
    expected = logits_of(folder, adapter)
    weights = mx.load(str(folder / "model.safetensors"))
    mx.save_safetensors(
        str(folder / "model.safetensors"), {without_model(name): array for name, array in weights.items()}
    )
    assert np.array_equal(logits_of(folder, adapter), expected)
    assert (logits_of(folder) != expected).any()


def test_two_names_of_one_tensor_are_refused(tmp_path):
    weights = tiny_weights(TIED)
    weights["norm.weight"] = np.ones(32, np.float32)
    with pytest.raises(CheckpointError, match=r"norm\.weight and (model\.)?norm\.weight are the same part"):
        Checkpoint(write_checkpoint(tmp_path, TIED, weights))


def test_a_tied_embedding_may_be_stored_as_the_head_alone(tmp_path, logits_of):
    weights = tiny_weights(TIED)
    expected = logits_of(write_checkpoint(tmp_path / "embedding", TIED, weights))
    weights[HEAD] = weights.pop(EMBEDDING)
    folder = write_checkpoint(tmp_path / "head", TIED, weights)
    assert np.array_equal(logits_of(folder), expected)
    untied = write_checkpoint(tmp_path / "untied", tiny_config("qwen3"), weights)
    with pytest.raises(CheckpointError, match=f"{EMBEDDING} is missing"):
        Checkpoint(untied)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.k_scale",
        "model.layers.1.self_attn.v_proj.v_scale",
        "model.layers.1.self_attn.k_proj.output_scale",
        "model.layers.0.self_attn.attn.q_scale",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "v_head.summary.weight",
        "v_head.summary.bias",
    ],
)
def test_unneeded_tensors_change_nothing(name, tmp_path, logits_of):
    expected = logits_of(write_checkpoint(tmp_path / "plain", TIED))
    weights = {**tiny_weights(TIED), name: np.full((1,), 7, np.float32)}
    assert np.array_equal(logits_of(write_checkpoint(tmp_path / "more", TIED, weights)), expected)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.k_scale", "lm_head.bias", "model.v_head.weight"])
def test_unknown_tensors_are_refused(name, tmp_path):
    weights = {**tiny_weights(TIED), name: np.full((1,), 7, np.float32)}
    with pytest.raises(CheckpointError, match=f"{name} in model.safetensors has no place in the model"):
        Checkpoint(write_checkpoint(tmp_path, TIED, weights))
