"""Tests that every layout of a checkpoint with linear attention is the same model."""

import json

import mlx.core as mx
import numpy as np
import pytest
from tiny_checkpoint import golden_configs, tiny_weights, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.packed.quantization import read_quantization
from metal_gen.models.matrices.quantized import Packing

pytestmark = pytest.mark.metal

CONFIGS = dict(golden_configs())
LANGUAGE = "model.language_model."
TOKENS = mx.array([[3, 17, 60, 8, 41, 22, 5, 9]])
SHIFTED = ("layernorm.weight", "model.norm.weight", "q_norm.weight", "k_norm.weight")
MTP = {"fc.weight": (32, 64), "norm.weight": (32,), "layers.0.self_attn.q_norm.weight": (32,)}


def published(name):
    """A config.json, and weights with all that is published beside the language part."""
    config = json.loads(json.dumps(CONFIGS[name]))
    weights = tiny_weights(config)
    for part, shape in MTP.items():
        weights[f"mtp.{part}"] = np.ones(shape, np.float32)
    return config, weights


def as_transformers_saves_the_text_model(config, weights):
    text = {**config["text_config"], "tie_word_embeddings": config["tie_word_embeddings"]}
    kept = {name: array for name, array in weights.items() if not name.startswith(("model.visual", "mtp."))}
    return text, {name.replace(LANGUAGE, "model."): array for name, array in kept.items()}


def without_a_head(prefix):
    """As `AutoModel` is saved."""

    def change(config, weights):
        kept = {name: array for name, array in weights.items() if name.startswith(LANGUAGE)}
        return config, {prefix + name.removeprefix(LANGUAGE): array for name, array in kept.items()}

    return change


def stacked(config, weights):
    """Experts of a layer in one tensor, as Qwen3.5 was published."""
    changed = dict(weights)
    prefixes = {name.partition("experts.0.")[0] for name in weights if "experts.0." in name}
    for prefix in prefixes:
        count = config.get("text_config", config)["num_experts"]

        def of(part, prefix=prefix, count=count):
            return np.stack([changed.pop(f"{prefix}experts.{index}.{part}.weight") for index in range(count)])

        gate, up = of("gate_proj"), of("up_proj")
        changed[f"{prefix}experts.gate_up_proj"] = np.concatenate([gate, up], axis=1)
        changed[f"{prefix}experts.down_proj"] = of("down_proj")
    return config, changed


def as_mlx_has_it(*, vision, mtp="language_model.mtp."):
    """As mlx-lm or mlx-vlm converts it: names, norms, convolutions and experts."""

    def change(config, weights):
        changed = {}
        for name, array in weights.items():
            if name.startswith("mtp."):
                name = mtp + name.removeprefix("mtp.") if mtp else None
            elif name.startswith("model.visual."):
                name = name.replace("model.visual.", "vision_tower.") if vision else None
            elif "text_config" in config:
                name = f"language_model.{name.replace(LANGUAGE, 'model.')}"
            if name is None:
                continue
            if name.endswith("conv1d.weight"):
                array = np.ascontiguousarray(np.moveaxis(array, 2, 1))
            elif name.endswith(SHIFTED):
                array = array + 1
            changed[name] = array
        return config, changed

    return change


def renamed_mtp(prefix):
    def change(config, weights):
        return config, {
            prefix + name.removeprefix("mtp.") if name.startswith("mtp.") else name: array
            for name, array in weights.items()
        }

    return change


def without_mtp(config, weights):
    return config, {name: array for name, array in weights.items() if not name.startswith("mtp.")}


DENSE, MOE, NEXT, TIED = "qwen3_5-untied", "qwen3_5_moe-untied", "qwen3_next-untied", "qwen3_5-tied"
LAYOUTS = {
    "transformers-text": (as_transformers_saves_the_text_model, (DENSE, MOE, TIED)),
    "base-text": (without_a_head(""), (TIED,)),
    "base-of-both": (without_a_head("language_model."), (TIED,)),
    "base-of-both-within": (without_a_head("model.language_model."), (TIED,)),
    "stacked": (stacked, (MOE, NEXT)),
    "mlx-lm": (as_mlx_has_it(vision=False, mtp=None), (DENSE, MOE, NEXT, TIED)),
    "mlx-lm-mtp": (as_mlx_has_it(vision=False), (DENSE, NEXT)),
    "mlx-vlm": (as_mlx_has_it(vision=True, mtp=None), (DENSE, MOE)),
    "mlx-vlm-mtp": (as_mlx_has_it(vision=True), (DENSE, TIED)),
    "mtp-within": (renamed_mtp("model.mtp."), (DENSE, NEXT)),
    "mtp-of-language": (renamed_mtp("model.language_model.mtp."), (DENSE,)),
    "without-mtp": (without_mtp, (DENSE, MOE, NEXT)),
}
CASES = [(layout, name) for layout, (_, names) in LAYOUTS.items() for name in names]


def logits_of(folder, make_cache):
    checkpoint = Checkpoint(folder)
    assert checkpoint.config.unknown_fields == ()
    model = checkpoint.weights.load("float32")
    return np.array(model.logits(model(TOKENS, make_cache(model))))


@pytest.mark.parametrize(("layout", "name"), CASES, ids=lambda value: value)
def test_every_layout_is_the_same_model(layout, name, make_cache, tmp_path):
    config, weights = published(name)
    expected = logits_of(write_checkpoint(tmp_path / "published", config, weights), make_cache)
    changed = LAYOUTS[layout][0](config, weights)
    found = logits_of(write_checkpoint(tmp_path / "changed", *changed), make_cache)
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def test_the_language_part_may_say_how_it_is_quantized():
    inner = {"quantization": {"bits": 4, "group_size": 32}}
    assert read_quantization({"text_config": inner}, "x").default == Packing(4, 32)
    both = {"text_config": inner, "quantization": {"bits": 8, "group_size": 64}}
    assert read_quantization(both, "x").default == Packing(8, 64)
    assert read_quantization({"text_config": [1]}, "x").default is None
