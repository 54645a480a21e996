"""Tests vision-language checkpoints: only the language part is read.

That its logits are right is a matter of the golden files.
"""

import json

import mlx.core as mx
import numpy as np
import pytest
from peak_memory import begin_peak, peak_since, rounding
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import tiny_weights, vision_language_configs, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.errors import CheckpointError
from metal_gen.models.config.model_config import ModelConfig

pytestmark = pytest.mark.metal

CONFIGS = dict(vision_language_configs())
NESTED = CONFIGS["qwen3_vl-untied"]


def rename(folder, change):
    path = folder / "model.safetensors"
    save_file({change(name): array for name, array in load_file(path).items()}, path)


def as_mlx_vlm(name):
    """Rename `model.language_model.layers` to `language_model.model.layers`."""
    name = name.removeprefix("model.")
    if name.startswith("visual."):
        return "vision_tower." + name.removeprefix("visual.")
    return "language_model." + (
        f"model.{name.removeprefix('language_model.')}" if name != "lm_head.weight" else name
    )


def test_mlx_tensor_names_give_the_same_model(tmp_path, make_cache, tokens):
    found = []
    for name, change in (("published", str), ("mlx", as_mlx_vlm)):
        folder = write_checkpoint(tmp_path / name, NESTED)
        rename(folder, change)
        model = Checkpoint(folder).weights.load("float32")
        found.append(model.logits(model(tokens, make_cache(model))))
    assert mx.array_equal(*found).item()


@pytest.mark.parametrize("name", ["qwen2_5_vl-flat", "qwen3_vl_moe-untied"])
def test_vision_weights_are_neither_read_nor_planned(tmp_path, name):
    weights = tiny_weights(CONFIGS[name])
    vision = next(tensor for tensor in weights if "visual" in tensor)
    language = sum(array.nbytes for tensor, array in weights.items() if tensor != vision)
    weights[vision] = np.ones((1024, 2048), np.float32)
    files = Checkpoint(write_checkpoint(tmp_path, CONFIGS[name], weights)).weights
    assert files.nbytes("float32") == language
    assert files.loading_peak_bytes("float32") < 2 * language
    before = begin_peak()
    model = files.load("float32")
    # Parts that are joined while they are read are rounded too.
    assert peak_since(before) < 1.1 * files.loading_peak_bytes("float32") + 2 * rounding(model)


def test_errors_name_a_tensor_as_in_its_file(tmp_path):
    weights = tiny_weights(NESTED)
    name = "model.language_model.layers.1.input_layernorm.weight"
    weights[name] = np.ones(31, np.float32)
    with pytest.raises(CheckpointError, match=f"json: {name} in model.safetensors is 31, but"):
        Checkpoint(write_checkpoint(tmp_path, NESTED, weights))


def test_end_tokens_of_both_parts_count(tmp_path):
    text = {**NESTED["text_config"], "eos_token_id": [1, 2]}
    folder = write_checkpoint(tmp_path, {**NESTED, "text_config": text, "eos_token_id": 3})
    assert Checkpoint(folder)._config_eos == {1, 2, 3}


@pytest.mark.parametrize(
    ("arch", "outside", "inside", "tied"),
    [
        ("qwen2_5_vl", None, True, True),
        ("qwen2_5_vl", False, True, True),
        ("qwen2_5_vl", True, None, True),
        ("qwen3_vl", False, True, True),
        ("qwen3_vl", None, True, True),
        ("qwen3_vl", True, False, True),
        ("qwen3_vl", None, None, False),
    ],
)
def test_either_part_of_the_config_may_tie_embeddings(arch, outside, inside, tied):
    text = {**NESTED["text_config"], "tie_word_embeddings": inside}
    config = {**NESTED, "model_type": arch, "tie_word_embeddings": outside, "text_config": text}
    assert ModelConfig.from_hf(config).tie_word_embeddings is tied


def test_published_fields_are_known():
    """Check the fields of Qwen2.5-VL-7B-Instruct and Qwen3-VL-4B-Instruct that are not sizes."""
    ids = {f"{name}_token_id": 1 for name in ("image", "video", "vision", "vision_start", "vision_end")}
    for name in ("qwen2_5_vl-flat", "qwen3_vl-tied"):
        config = {**CONFIGS[name], **ids, "transformers_version": "4.57.0", "torch_dtype": "bfloat16"}
        assert ModelConfig.from_hf(config).unknown_fields == ()


def test_missing_fields_have_the_defaults_of_the_family():
    flat = {name: value for name, value in CONFIGS["qwen2_vl-flat"].items() if name != "rope_theta"}
    assert ModelConfig.from_hf(flat).rope.rope_theta == 1e6
    with pytest.raises(CheckpointError, match="text_config must be an object"):
        ModelConfig.from_hf({**NESTED, "text_config": [json.dumps(NESTED)]})
