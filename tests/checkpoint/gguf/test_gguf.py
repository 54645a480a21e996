"""Tests GGUF files: logits equal those of the dequantized weights, for every type of block."""

import gc

import mlx.core as mx
import numpy as np
import pytest
from adapter_files import random_factors, write_mlx
from gguf_file import TOKENS, gguf_config, gguf_tensors, metadata_of, write_gguf, write_tiny_gguf
from quantized_checkpoint import assert_in_order
from tiny_checkpoint import PROMPT, write_checkpoint

from metal_gen.batch.output.fingerprint import checkpoint_digest
from metal_gen.bench.runners.mlx_lm import require_for_mlx_lm
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.device.buffer_cache import clear_buffer_cache
from metal_gen.errors import CheckpointError, UsageError
from metal_gen.models.matrices.quantized import QuantizedMatrix

pytestmark = pytest.mark.metal

KINDS = [
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "MXFP4"),
]


def q4_k_m(name):
    """Choose more bits where they matter, as llama.cpp does."""
    return "Q6_K" if "attn_v" in name or "ffn_down" in name or name == "output.weight" else "Q4_K"


def logits_of(path, make_cache, *adapters):
    model = Checkpoint(path, adapters=adapters).weights.load("float32")
    assert_in_order(model)
    return np.array(model.logits(model(mx.array([PROMPT]), make_cache(model)))[0])


def assert_same_logits(file, plain, make_cache):
    expected = logits_of(plain, make_cache)
    assert np.abs(logits_of(file, make_cache) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.quick
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_the_dequantized_weights(kind, make_cache, tmp_path):
    file, plain = write_tiny_gguf(tmp_path, gguf_config("qwen3"), lambda name: kind)
    assert_same_logits(file, plain, make_cache)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("arch", ["qwen2", "qwen2_moe", "qwen3", "qwen3_moe"])
def test_every_architecture_is_read_with_blocks_of_several_kinds(arch, tied, make_cache, tmp_path):
    config = gguf_config(arch, tie_word_embeddings=tied)
    assert_same_logits(*write_tiny_gguf(tmp_path, config, q4_k_m), make_cache)


MIXES = {
    "Q2_K": lambda name: "Q3_K" if "attn_output" in name or "ffn_down" in name else "Q2_K",
    "Q3_K_M": lambda name: "Q5_K" if "attn_v" in name else "Q4_K" if "ffn_down" in name else "Q3_K",
    "IQ4_NL": lambda name: "Q5_K" if "attn_v" in name or "ffn_down" in name else "IQ4_NL",
    "MXFP4_MOE": lambda name: "MXFP4" if "_exps" in name else "Q8_0",
}


@pytest.mark.parametrize("mix", MIXES)
def test_experts_are_read_from_every_mix(mix, make_cache, tmp_path):
    assert_same_logits(*write_tiny_gguf(tmp_path, gguf_config("qwen3_moe"), MIXES[mix]), make_cache)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *(("Q4_K", "bfloat16"), ("Q6_K", "bfloat16"), ("F32", "float32"), ("F16", "float32")),
        *(("Q2_K", "float32"), ("Q3_K", "bfloat16"), ("IQ4_XS", "bfloat16"), ("MXFP4", "bfloat16")),
    ],
)
def test_packed_blocks_stay_packed_and_memory_is_what_was_planned(kind, dtype, tmp_path):
    config = gguf_config("qwen3", num_hidden_layers=1)
    config.update(vocab_size=32_768)
    stored, _ = gguf_tensors(config, lambda name: kind, decode=False)
    weights = Checkpoint(write_gguf(tmp_path / "tiny.gguf", metadata_of(config), stored)).weights
    gc.collect()  # What earlier tests left would be released while the weights are read.
    clear_buffer_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model = weights.load(dtype)
    taken = mx.get_active_memory() - before
    assert abs(taken - weights.nbytes(dtype)) < 0.02 * taken
    assert mx.get_peak_memory() - before < 1.05 * weights.loading_peak_bytes(dtype)
    bytes_per_number = {"Q3_K": 1.1, "Q4_K": 0.7, "IQ4_XS": 1.2, "MXFP4": 0.6}
    assert isinstance(model.embedding, QuantizedMatrix) == (kind in bytes_per_number)
    assert taken < bytes_per_number.get(kind, 5) * weights.num_parameters


@pytest.mark.quick
def test_the_shape_of_a_model_comes_from_the_metadata(tmp_path):
    scaling = {"type": "yarn", "factor": 4.0, "original_context_length": 64}
    metadata = {f"qwen3.rope.scaling.{name}": value for name, value in scaling.items()}
    file, _ = write_tiny_gguf(tmp_path, gguf_config("qwen3"), lambda name: "Q8_0", metadata)
    checkpoint = Checkpoint(file)
    rope = checkpoint.config.rope
    assert (rope.rope_type, rope.factor, rope.original_max_position_embeddings) == ("yarn", 4.0, 64)
    assert checkpoint.weights.dtype == "bfloat16"
    assert checkpoint.eos_ids == {TOKENS.index("<|endoftext|>"), TOKENS.index("<|im_end|>")}
    assert checkpoint.config.unknown_fields == ()


@pytest.mark.quick
def test_adapters_add_to_it(make_cache, tmp_path):
    file, plain = write_tiny_gguf(tmp_path, gguf_config("qwen3"), lambda name: "Q4_K")
    shapes = {"model.layers.0.mlp.down_proj": (256, 256), "model.layers.1.self_attn.v_proj": (128, 256)}
    adapter = write_mlx(tmp_path / "adapter", random_factors(shapes))
    expected = logits_of(plain, make_cache, adapter)
    assert np.abs(logits_of(file, make_cache, adapter) - expected).max() <= 1e-4 * np.abs(expected).max()
    assert np.abs(logits_of(file, make_cache) - expected).max() > 0.1 * np.abs(expected).max()


def test_a_gate_of_the_shared_expert_may_be_a_vector(make_cache, tmp_path):
    config = gguf_config("qwen2_moe")
    stored, plain = gguf_tensors(config, lambda name: "Q8_0")
    for name, (kind, shape, content) in stored.items():
        if name.endswith("ffn_gate_inp_shexp.weight"):
            stored[name] = (kind, shape[1:], content)
    file = write_gguf(tmp_path / "tiny.gguf", metadata_of(config), stored)
    assert_same_logits(file, write_checkpoint(tmp_path / "plain", config, plain), make_cache)


@pytest.mark.quick
def test_older_versions_and_other_alignments_are_read(make_cache, tmp_path):
    config = gguf_config("qwen3")
    file, plain = write_tiny_gguf(
        tmp_path, config, lambda name: "Q8_0", {"general.alignment": 64}, version=2, alignment=64
    )
    assert_same_logits(file, plain, make_cache)


def test_a_folder_with_one_gguf_file_is_that_file(tmp_path):
    file, _ = write_tiny_gguf(tmp_path, gguf_config("qwen3"), lambda name: "Q8_0")
    assert Checkpoint(tmp_path).folder == file
    (tmp_path / "other.gguf").touch()
    with pytest.raises(CheckpointError, match=r"several GGUF files: other\.gguf, tiny\.gguf"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "name", ["mmproj-F16.gguf", "a.mmproj-Q8_0.gguf", "tiny-MMPROJ.gguf", "mtp-tiny.gguf"]
)
def test_a_vision_projector_is_not_a_model(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=name):
        Checkpoint(tmp_path)
    file, _ = write_tiny_gguf(tmp_path, gguf_config("qwen3"), lambda name: "Q8_0")
    assert Checkpoint(tmp_path).folder == file


def test_it_cannot_be_compared_with_mlx_lm(tmp_path):
    (tmp_path / "tiny.gguf").touch()
    require_for_mlx_lm(tmp_path)
    with pytest.raises(UsageError, match=r"mlx-lm does not read GGUF files: .*tiny\.gguf"):
        require_for_mlx_lm(tmp_path / "tiny.gguf")


def test_a_run_over_another_chat_template_is_another_run(tmp_path):
    def digest(template):
        metadata = {"tokenizer.chat_template": template}
        file, _ = write_tiny_gguf(tmp_path, gguf_config("qwen3"), lambda name: "Q8_0", metadata)
        return checkpoint_digest(Checkpoint(file))

    assert digest("one") == digest("one") != digest("two")
