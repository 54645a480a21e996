"""Tests refusals of AWQ, GPTQ, FP8 and compressed-tensors: each error names what does not fit."""

from pathlib import Path

import numpy as np
import pytest
from published_checkpoint import Stored, awq, change, fp8, gptq, pack_quantized, write_published

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.packed.awq import Awq
from metal_gen.checkpoint.packed.compressed_tensors import PackQuantized
from metal_gen.checkpoint.packed.gptq import Gptq
from metal_gen.checkpoint.packed.groups import Groups
from metal_gen.checkpoint.packed.quantization import read_quantization
from metal_gen.errors import CheckpointError
from metal_gen.files.safetensors_header import TensorInfo


def without(name):
    return lambda tensors, config: tensors.pop(f"{PROJECTION}.{name}")


def with_tensor(name, make):
    def what(tensors, config):
        full = f"{PROJECTION}.{name}"
        tensors[full] = make(tensors.get(full))

    return what


def with_config(**changes):
    return lambda tensors, config: config["quantization_config"].update(changes)


def with_weights(**changes):
    return lambda tensors, config: config["quantization_config"]["config_groups"]["group_0"][
        "weights"
    ].update(changes)


PROJECTION = "model.layers.1.mlp.down_proj"  # 64 x 128
IN_FILE = "in model.safetensors"
GPTQ, AWQ, FP8, PACKED = gptq(4, 32), awq(32), fp8((48, 40)), pack_quantized(4, 32, symmetric=False)
AUTO_ROUND = gptq(4, 32, quant_method="auto-round", packing_format="auto_round:auto_gptq")
REFUSALS = [
    (AWQ, without("qweight"), f"{PROJECTION}.qweight is missing"),
    (AWQ, without("qzeros"), f"{PROJECTION}.qzeros is missing"),
    (AWQ, without("scales"), f"{PROJECTION}.scales is missing"),
    (AWQ, with_tensor("qweight", lambda words: words[:, :-1]), f"qweight {IN_FILE} is 128 x 7, but"),
    (
        AWQ,
        with_tensor("qweight", lambda words: words.astype(np.int64)),
        "stored as I64, and only I32 are supported",
    ),
    (AWQ, with_tensor("scales", lambda scales: scales.astype(np.int32)), "stored as I32, and only F32"),
    (
        AWQ,
        with_tensor("weight", lambda _: np.ones(4, np.float32)),
        f"weight {IN_FILE} has no place in the model",
    ),
    (AWQ, with_config(bits=8), "bits is 8, and only 4 is supported"),
    (AWQ, with_config(version="gemv"), "version is 'gemv', and only gemm is supported"),
    (
        AWQ,
        with_config(backend="llm-awq"),
        "backend is 'llm-awq', and only autoawq and gptqmodel are supported",
    ),
    (AWQ, with_config(group_size=0), "group_size must be above 0, or -1 for whole rows, not 0"),
    (
        AWQ,
        with_config(group_size=48),
        "in groups of 48, which cannot be split into groups of 32",
    ),
    (
        AWQ,
        with_config(quant_method="bitnet"),
        "quant_method is 'bitnet', and only awq, gptq, auto-round, fp8 and",
    ),
    (
        AWQ,
        with_config(quant_method=["awq"]),
        "quant_method is ['awq'], and only awq, gptq, auto-round, fp8 and",
    ),
    (GPTQ, without("qzeros"), f"{PROJECTION}.qzeros is missing"),
    (GPTQ, with_config(bits=8), f"qzeros {IN_FILE} is 2 x 32, but config.json requires 2 x 64"),
    (GPTQ, with_config(bits=3), "bits is 3, and only 2, 4 and 8 are supported"),
    (GPTQ, with_config(bits=True), "bits is True, and only 2, 4 and 8 are supported"),
    (GPTQ, with_config(desc_act=True), "desc_act is true, which groups inputs by importance"),
    (
        GPTQ,
        with_config(checkpoint_format="marlin"),
        "checkpoint_format is 'marlin', and only gptq and gptq_v2 are",
    ),
    (GPTQ, with_config(is_marlin_format=True), "is_marlin_format is True, and only False is supported"),
    (
        GPTQ,
        with_config(dynamic={"+:.*down": {"bits": 8}}),
        "dynamic gives +:.*down bits 8, and only checkpoints",
    ),
    (
        GPTQ,
        with_config(dynamic={"+:.*down": {"sym": True}}),
        "dynamic gives +:.*down sym True, and only checkpoints",
    ),
    (GPTQ, with_config(dynamic=[]), None),
    (GPTQ, with_config(dynamic=["x"]), "dynamic must be an object"),
    (
        GPTQ,
        with_tensor("g_idx", lambda index: index[:-1]),
        f"g_idx {IN_FILE} is 127, but config.json requires 128",
    ),
    (
        GPTQ,
        with_tensor("g_idx", lambda index: index[::-1]),
        f"g_idx {IN_FILE} groups inputs by importance",
    ),
    (GPTQ, with_tensor("bias", lambda _: np.zeros(64, np.float16)), None),
    (
        GPTQ,
        with_tensor("bias", lambda _: np.ones(64, np.float16)),
        f"bias {IN_FILE} has numbers other than 0",
    ),
    (
        GPTQ,
        with_config(sym=True),
        "qzeros in model.safetensors has zero points other than 8, and config.json",
    ),
    (GPTQ, with_config(sym=None), None),
    (GPTQ, with_config(sym=1), "sym must be true or false, not 1"),
    (AUTO_ROUND, without("qweight"), f"{PROJECTION}.qweight is missing"),
    (
        AUTO_ROUND,
        with_config(packing_format=None),
        "packing_format is None, and only auto_round:auto_gptq, auto_round:",
    ),
    (AUTO_ROUND, with_config(data_type="mx_fp"), "data_type is 'mx_fp', and only int is supported"),
    (AUTO_ROUND, with_config(act_bits=8), "act_bits is 8, and only 16 and 32 are supported"),
    (AUTO_ROUND, with_config(extra_config=[1]), "extra_config must be an object of objects"),
    (
        AUTO_ROUND,
        with_config(extra_config={PROJECTION: {"bits": 8}}),
        f"extra_config gives {PROJECTION} bits 8, and only checkpoints",
    ),
    (AUTO_ROUND, with_config(extra_config={PROJECTION: {"bits": 4, "group_size": 32}}), None),
    (FP8, without("weight_scale_inv"), f"{PROJECTION}.weight_scale_inv is missing"),
    (FP8, without("weight"), f"{PROJECTION}.weight is missing"),
    (
        FP8,
        with_config(weight_block_size=[64, 64]),
        f"weight_scale_inv {IN_FILE} is 3 x 2, but config.json requires 2 x 1",
    ),
    (
        FP8,
        with_config(weight_block_size=[64]),
        "weight_block_size must be two whole numbers above 0, not [64]",
    ),
    (FP8, with_config(fmt="e5m2"), "fmt is 'e5m2', and only e4m3 and float8_e4m3fn are supported"),
    (
        FP8,
        with_tensor("weight", lambda weight: Stored(weight.bits, "F8_E5M2")),
        "stored as F8_E5M2, and only F8_E4M3",
    ),
    (
        FP8,
        with_tensor("weight_scale_inv", lambda scale: Stored(scale.bits.view(np.uint8)[:, ::2], "F8_E8M0")),
        "stored as F8_E8M0, and only F32, F16, BF16 are supported",
    ),
    (PACKED, without("weight_zero_point"), f"{PROJECTION}.weight_zero_point is missing"),
    (
        PACKED,
        with_config(format="int-quantized"),
        "format is 'int-quantized', and only pack-quantized, float-quantized",
    ),
    (PACKED, with_config(config_groups={}), "config_groups must be an object with one group"),
    (PACKED, with_config(config_groups={"a": 1}), "config_groups has no weights"),
    (
        PACKED,
        with_config(transform_config={"rotate": {}}),
        "transform_config is given, and such weights are not",
    ),
    (PACKED, with_weights(num_bits=5), "num_bits is 5, and only 4 and 8 are supported"),
    (
        PACKED,
        with_weights(actorder="group"),
        "actorder is 'group', and only False, weight and static are supported",
    ),
    (
        PACKED,
        with_weights(strategy="tensor"),
        "strategy is 'tensor', and only group and channel are supported",
    ),
]


@pytest.mark.parametrize(("method", "what", "message"), REFUSALS)
def test_refusals_name_what_does_not_fit(method, what, message, tmp_path):
    folder, _ = write_published(tmp_path, method, "qwen3")
    change(folder, what)
    if message is None:
        Checkpoint(folder).weights.load("float32")
        return
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder).weights.load("float32")
    assert message in str(caught.value)
    assert str(folder) in str(caught.value) or "model.safetensors" in str(caught.value)


def test_an_unsupported_method_is_refused_with_an_alternative(tmp_path):
    folder, _ = write_published(tmp_path, AWQ, "qwen3")
    change(folder, with_config(quant_method="hqq"))
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder)
    assert "config.json" in str(caught.value)
    assert "MLX version" in caught.value.hint


@pytest.mark.parametrize("mode", [{"a": 1}, ["affine"], 4, "x" * 10_000])
def test_a_mode_that_mlx_does_not_have_is_refused(mode):
    with pytest.raises(CheckpointError, match=r"mode is .*, and MLX has affine, mxfp4") as caught:
        read_quantization({"quantization": {"bits": 4, "mode": mode}}, "config.json")
    assert len(caught.value.message) < 300


def test_fp8_without_a_config_is_refused(tmp_path):
    folder, _ = write_published(tmp_path, FP8, "qwen3")
    change(folder, lambda tensors, config: config.pop("quantization_config"))
    with pytest.raises(CheckpointError, match="stored as F8_E4M3, and only F32, F16, BF16 are supported"):
        Checkpoint(folder)


BY_32 = Groups(4, 32)
FOUND = {
    f"m.{part}": TensorInfo(f"m.{part}", "I32", (1,), 4, Path("x.safetensors"), 0)
    for part in ("qweight", "weight_packed")
}


@pytest.mark.parametrize("method", [Awq(BY_32), Gptq(BY_32, True), PackQuantized(BY_32, False)])
def test_outputs_that_do_not_fill_the_words_they_are_packed_in(method):
    with pytest.raises(
        CheckpointError, match=r"m in x\.safetensors cannot be packed .* has 12, .* groups of 8"
    ):
        method.form("m", (12, 32), FOUND)


def test_without_zeros_nothing_is_packed_along_outputs():
    assert PackQuantized(BY_32, True).form("m", (12, 32), FOUND) is not None
