"""Tests AWQ, GPTQ, FP8 and compressed-tensors: logits equal those of the dequantized weights."""

import json

import mlx.core as mx
import numpy as np
import pytest
from peak_memory import begin_peak, in_use, peak_since, rounding
from published_checkpoint import (
    Published,
    awq,
    change,
    compressed,
    fp8,
    gptq,
    pack_quantized,
    read_safetensors,
    write_config,
    write_published,
)
from quantized_checkpoint import assert_in_order, logits_of_mlx_lm, quantizable_config, quantize_with_mlx_lm
from tiny_checkpoint import PROMPT, tiny_weights, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.models.matrices.quantized import Packing

pytestmark = pytest.mark.metal

BY_ROW = {"num_bits": 8, "type": "float", "strategy": "channel"}
IN_BLOCKS = {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [48, 40]}


def auto_round(layout, method, **fields):
    """Return AutoRound's own format, whose tensors are those of another format."""
    extra = {"lm_head": {"bits": 16, "data_type": "float"}, "model.layers.0.mlp.up_proj": {"bits": 4}}
    config = {
        "quant_method": "auto-round",
        "packing_format": f"auto_round:{layout}",
        "data_type": "int",
        "extra_config": extra,
        "iters": 200,
        **{name: method.config[name] for name in ("bits", "group_size")},
    }
    return Published({**config, **fields}, method.pack)


METHODS = {
    "awq in groups of 32": awq(32),
    "awq in rows": awq(-1),
    "gptq of 4 bits, symmetric": gptq(4, 32, zero=8),
    "gptq of 4 bits": gptq(4, 64, layout=None),
    "gptq of 4 bits in rows": gptq(4, -1, desc_act=True),
    "gptq of 4 bits, later format": gptq(4, 32, layout="gptq_v2"),
    "gptq of 8 bits": gptq(8, 64, zero=128, dynamic={"-:.*gate": {}, "+:.*": {"bits": 8, "mse": 0.1}}),
    "gptq of 2 bits": gptq(2, 32),
    "gptq in groups that MLX lacks, the last of which is shorter": gptq(4, 96),
    "auto-round as gptq": auto_round("auto_gptq", gptq(4, 32), sym=False),
    "auto-round as gptq, symmetric": auto_round("auto_gptq", gptq(4, 32, zero=8), sym=True),
    "auto-round as gptq, later format": auto_round("gptqmodel", gptq(4, 32, layout="gptq_v2"), sym=False),
    "auto-round as awq": auto_round("auto_awq", awq(32), sym=False),
    "fp8 in blocks that do not divide": fp8((48, 40)),
    "fp8 in rows": fp8(None, "(out, 1)"),
    "fp8 in rows, of one axis": fp8(None, "(out,)"),
    "fp8 with one scale": fp8(None, "()"),
    "compressed-tensors of 4 bits": pack_quantized(4, 32, symmetric=True),
    "compressed-tensors of 8 bits in rows": pack_quantized(8, -1, symmetric=False),
    "compressed-tensors of fp8 in rows": fp8(None, "(out, 1)", **compressed("float-quantized", BY_ROW)),
    "compressed-tensors of fp8 in blocks": fp8((48, 40), **compressed("float-quantized", IN_BLOCKS)),
}


def logits(folder, make_cache):
    model = Checkpoint(folder).weights.load("float32")
    assert_in_order(model)
    return np.array(model.logits(model(mx.array([PROMPT]), make_cache(model)))[0])


def assert_close(ours, expected):
    assert np.abs(ours - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("family", ["qwen2", "qwen3_moe"])
@pytest.mark.parametrize("method", METHODS)
def test_logits_equal_those_of_the_dequantized_weights(method, family, make_cache, tmp_path):
    published, plain = write_published(tmp_path, METHODS[method], family)
    assert_close(logits(published, make_cache), logits(plain, make_cache))


@pytest.mark.parametrize(
    "method", [awq(32), gptq(4, 32), fp8((48, 40)), pack_quantized(4, 32, symmetric=True)]
)
def test_some_matrices_may_be_unquantized(method, make_cache, tmp_path):
    published, plain = write_published(tmp_path, method, "qwen3")
    numbers = read_safetensors(plain)

    def with_plain_values(tensors, config):
        for name in [name for name in tensors if ".0.self_attn.v_proj." in name]:
            del tensors[name]
        tensors["model.layers.0.self_attn.v_proj.weight"] = numbers["model.layers.0.self_attn.v_proj.weight"]

    change(published, with_plain_values)
    assert_close(logits(published, make_cache), logits(plain, make_cache))


def test_linear_attention_may_be_in_fp8(make_cache, tmp_path):
    published, plain = write_published(tmp_path, fp8((48, 40)), "qwen3_next")
    assert_close(logits(published, make_cache), logits(plain, make_cache))


def test_awq_equals_mlx_lm_s_conversion(make_cache, tmp_path):
    published, _ = write_published(tmp_path, awq(64, "float32"), "qwen3")

    def in_float32(tensors, config):
        for name, tensor in tensors.items():
            tensors[name] = tensor.astype(np.float32) if tensor.dtype == np.float16 else tensor

    change(published, in_float32)
    assert_close(logits(published, make_cache), logits_of_mlx_lm(published))


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8"])
def test_mlx_modes_equal_mlx_lm_s(mode, make_cache, tmp_path):
    packing = Packing(4 if mode == "mxfp4" else 8, 32, mode)
    folder = quantize_with_mlx_lm(tmp_path, quantizable_config("qwen3"), packing)
    config = json.loads((folder / "config.json").read_text())
    del config["quantization"]
    write_config(folder, {**config, "quantization_config": {"quant_method": mode}})
    assert_close(logits(folder, make_cache), logits_of_mlx_lm(folder))


def test_a_zero_of_0_borrows_from_the_next_in_the_first_format(make_cache, tmp_path):
    """GPTQModel subtracts 1 from every number of a word at once, and adds it in the same way."""
    later, _ = write_published(tmp_path, gptq(4, 64, layout="gptq_v2"), "qwen3")
    first, _ = write_published(tmp_path / "first", gptq(4, 64, layout="gptq"), "qwen3")

    def with_zeros_of_0(subtracted):
        def what(tensors, config):
            for name in tensors:
                if name.endswith("qzeros"):
                    words = tensors[name].view(np.uint32) & np.uint32(0xF0F0F0F0)
                    tensors[name] = (words - np.uint32(subtracted)).view(np.int32)

        return what

    tensors = read_safetensors(later)
    change(later, with_zeros_of_0(0))
    change(first, lambda found, config: found.update(tensors))
    change(first, with_zeros_of_0(0x11111111))
    assert np.array_equal(logits(first, make_cache), logits(later, make_cache))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("layout", ["gptq", "gptq_v2"])
@pytest.mark.parametrize("named", ["gptq", "gptq_v2", None])
def test_symmetric_zeros_are_the_middle_in_either_format(bits, layout, named, make_cache, tmp_path):
    method = gptq(bits, 32, zero=1 << (bits - 1), layout=layout, checkpoint_format=named)
    published, plain = write_published(tmp_path, method, "qwen3")
    assert_close(logits(published, make_cache), logits(plain, make_cache))


def test_an_fp8_cache_leaves_weights_unquantized(make_cache, tmp_path):
    config = quantizable_config("qwen3")
    plain = write_checkpoint(tmp_path / "plain", config)
    scheme = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True}
    method = {"quant_method": "compressed-tensors", "format": "dense", "kv_cache_scheme": scheme}
    for groups in ({}, None):
        given = {**config, "quantization_config": {**method, "config_groups": groups}}
        weights = tiny_weights(config)
        weights["model.layers.0.self_attn.k_scale"] = np.full((1,), 7, np.float32)
        dense = write_checkpoint(tmp_path / "dense", given, weights)
        assert np.array_equal(logits(dense, make_cache), logits(plain, make_cache))


@pytest.mark.parametrize(
    "method", [awq(32), gptq(4, 32), fp8((128, 128)), pack_quantized(4, 32, symmetric=True)]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_equals_the_plan(method, dtype, tmp_path):
    published, _ = write_published(tmp_path, method, "qwen3", hidden_size=256, intermediate_size=2048)
    weights = Checkpoint(published).weights
    before = begin_peak()
    model = weights.load(dtype)
    taken, peak, more = in_use() - before, peak_since(before), rounding(model)
    assert abs(taken - weights.nbytes(dtype) - more) < 0.02 * taken
    assert 0.8 * weights.loading_peak_bytes(dtype) < peak < 1.05 * weights.loading_peak_bytes(dtype) + more
    assert model.config.hidden_size == 256
