"""GGUF files of models with linear attention: logits are those of the checkpoint that they were made from."""

import mlx.core as mx
import numpy as np
import pytest
from gguf_file import write_gguf
from hybrid_gguf import (
    ARCHITECTURES,
    hybrid_config,
    hybrid_metadata,
    hybrid_tensors,
    with_mtp,
    write_hybrid,
)
from safetensors.numpy import load_file

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.errors import CheckpointError, ExitCode
from metal_gen.models.matrices.quantized import QuantizedMatrix

pytestmark = pytest.mark.metal

TOKENS = mx.array([[(7 * place * place + 3 * place) % 320 for place in range(66)]])
HYBRIDS = [*ARCHITECTURES]


def logits_of(path, make_cache):
    model = Checkpoint(path).weights.load("float32")
    cache = make_cache(model, max_seq_len=TOKENS.size)
    return np.array(model.logits(model(TOKENS, cache)))


def assert_same_logits(one, other, make_cache, tolerance=2e-5):
    expected = logits_of(other, make_cache)
    assert np.abs(logits_of(one, make_cache) - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("changes", [{}, {"linear_num_value_heads": 4}, {"linear_key_head_dim": 16}])
@pytest.mark.parametrize("arch", HYBRIDS)
def test_logits_are_those_of_the_checkpoint(arch, changes, make_cache, tmp_path):
    file, checkpoint = write_hybrid(tmp_path, hybrid_config(arch, **changes))
    assert_same_logits(file, checkpoint, make_cache)


@pytest.mark.parametrize(
    ("arch", "kind"),
    [
        *(("qwen3_5_text", kind) for kind in ("F16", "Q3_K", "Q5_K", "Q6_K", "MXFP4")),
        *(("qwen3_next", "Q5_1"), ("qwen3_5_moe_text", "Q4_0")),
    ],
)
def test_quantized_heads_are_put_in_order_too(arch, kind, make_cache, tmp_path):
    sizes = {"linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_value_head_dim": 128}
    config = hybrid_config(arch, 256 if kind.endswith("_K") else 64, **sizes)
    stored, plain = hybrid_tensors(config, with_mtp(config), lambda name: kind)
    metadata = hybrid_metadata(config)
    file = write_gguf(tmp_path / "tiny.gguf", metadata, stored)
    assert_same_logits(file, write_gguf(tmp_path / "plain.gguf", metadata, plain), make_cache, 1e-4)


def test_blocks_stay_quantized_whatever_their_order(tmp_path):
    config = hybrid_config("qwen3_5_text", 256)
    stored, _ = hybrid_tensors(config, with_mtp(config), lambda name: "Q4_K")
    checkpoint = Checkpoint(write_gguf(tmp_path / "tiny.gguf", hybrid_metadata(config), stored))
    mixer = checkpoint.weights.load("float32").layers[0].attention
    assert isinstance(mixer.output.weight, QuantizedMatrix)
    assert isinstance(mixer.inputs.weight, QuantizedMatrix)
    assert checkpoint.weights.nbytes("bfloat16") < 0.75 * checkpoint.weights.num_parameters


def test_the_shape_of_a_model_comes_from_the_metadata(tmp_path):
    config = hybrid_config("qwen3_5_text", linear_value_head_dim=64)
    file, checkpoint = write_hybrid(tmp_path, config)
    found, expected = Checkpoint(file).config, Checkpoint(checkpoint).config
    assert (found.linear, found.layer_types) == (expected.linear, expected.layer_types)
    assert found.rope.rotated_of(found.head_dim) == 16
    assert found.unknown_fields == ()
    listed = {"attention.recurrent_layers": [True, True, True, False, False], "full_attention_interval": None}
    other, _ = write_hybrid(tmp_path, config, **listed)
    assert Checkpoint(other).config.layer_types == expected.layer_types


def test_layers_that_predict_further_tokens_are_no_part_of_the_model(tmp_path):
    config = hybrid_config("qwen3_next")
    with_them, checkpoint = write_hybrid(tmp_path, config)
    assert Checkpoint(with_them).weights.num_parameters == Checkpoint(checkpoint).weights.num_parameters
    tensors = hybrid_tensors(config, with_mtp(config))[0]
    without = {name: tensor for name, tensor in tensors.items() if not name.startswith("blk.4.")}
    metadata = hybrid_metadata(config, block_count=4, nextn_predict_layers=None)
    found = Checkpoint(write_gguf(tmp_path / "without.gguf", metadata, without)).config
    assert found.num_hidden_layers == 4


def test_inputs_of_older_files_are_read(make_cache, tmp_path):
    """Qwen3-Next's queries, keys, values and gates were one tensor, as they are in the checkpoint."""
    config = hybrid_config("qwen3_next")
    file, checkpoint = write_hybrid(tmp_path, config)
    tensors = hybrid_tensors(config, with_mtp(config))[0]
    weights = load_file(checkpoint / "model.safetensors")
    for layer in range(3):
        array = weights[f"model.layers.{layer}.linear_attn.in_proj_qkvz.weight"]
        del tensors[f"blk.{layer}.attn_qkv.weight"], tensors[f"blk.{layer}.attn_gate.weight"]
        tensors[f"blk.{layer}.ssm_in.weight"] = ("F32", array.shape, array.tobytes())
    older = write_gguf(tmp_path / "older.gguf", hybrid_metadata(config), tensors)
    assert_same_logits(older, file, make_cache)


def test_gate_and_up_of_experts_may_be_one_tensor(make_cache, tmp_path):
    config = hybrid_config("qwen3_5_moe_text")
    stored, _ = hybrid_tensors(config, with_mtp(config), lambda name: "Q8_0")
    fused = dict(stored)
    for layer in range(4):
        gate, up = (fused.pop(f"blk.{layer}.ffn_{part}_exps.weight") for part in ("gate", "up"))
        experts, rows, width = gate[1]
        parts = [np.frombuffer(part[2], np.uint8).reshape(experts, rows, -1) for part in (gate, up)]
        content = np.concatenate(parts, axis=1).tobytes()
        fused[f"blk.{layer}.ffn_gate_up_exps.weight"] = ("Q8_0", (experts, 2 * rows, width), content)
    paths = [
        write_gguf(tmp_path / f"{name}.gguf", hybrid_metadata(config), tensors)
        for name, tensors in (("fused", fused), ("apart", stored))
    ]
    assert_same_logits(*paths, make_cache)


def refusal(config, tmp_path, changed=(), kind="F32", **fields):
    stored, _ = hybrid_tensors(config, with_mtp(config), lambda name: kind)
    stored = {**stored, **dict(changed)}
    path = write_gguf(tmp_path / "x.gguf", hybrid_metadata(config, **fields), stored)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(path).weights.load("float32")
    assert caught.value.exit_code == ExitCode.BAD_CHECKPOINT
    assert "x.gguf" in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ssm.state_size": None}, "qwen35.ssm.state_size is missing"),
        ({"ssm.inner_size": 250}, "qwen35.ssm.inner_size is 250, which 8 heads cannot share evenly"),
        ({"ssm.group_count": 3}, "8 value heads cannot share 3 key heads of linear attention evenly"),
        ({"ssm.group_count": 0}, "qwen35.ssm.group_count must be a whole number of at least 1"),
        ({"ssm.conv_kernel": 3}, "ssm_conv1d.weight in x.gguf is 512 x 4 x 1, but"),
        ({"ssm.time_step_rank": 4}, "ssm_alpha.weight in x.gguf is 8 x 64, but metadata requires 4 x 64"),
        ({"nextn_predict_layers": 5}, "nextn_predict_layers is 5, and of 5 layers some must be the model's"),
        ({"full_attention_interval": 1}, "it has no layer of linear attention"),
        ({"attention.recurrent_layers": [True]}, "attention.recurrent_layers must list 4 layers"),
        ({"attention.recurrent_layers": 4}, "attention.recurrent_layers must list 4 layers"),
        ({"attention.recurrent_layers": [True] * 5}, "layer_types has no full_attention"),
        ({"rope.dimension_count": 17}, "17 of the 64 numbers of a head would be rotated"),
        ({"block_count": 9, "nextn_predict_layers": 4}, "blk.4.attn_qkv.weight is missing"),
    ],
)
def test_metadata_that_cannot_be_used(fields, message, tmp_path):
    assert message in refusal(hybrid_config("qwen3_5_text"), tmp_path, **fields)


def test_tensors_that_cannot_be_used(tmp_path):
    config = hybrid_config("qwen3_5_text", linear_value_head_dim=48)
    found = refusal(config, tmp_path, kind="Q8_0", **{"ssm.inner_size": 8 * 48})
    assert "ssm_out.weight is stored as Q8_0, whose groups of 32 do not divide its heads of 48" in found
    config = hybrid_config("qwen3_5_text")
    positive = {"blk.1.ssm_a": ("F32", (8,), np.ones(8, np.float32).tobytes())}
    assert "blk.1.ssm_a has numbers that it cannot have" in refusal(config, tmp_path, positive)
    name = "blk.0.ssm_dt.bias"
    assert f"{name} in x.gguf is 7, but" in refusal(config, tmp_path, {name: ("F32", (7,), bytes(28))})
