"""Tests quantizing while reading: matrices equal those of mlx-lm, and the plan includes them."""

import json
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
from adapter_files import random_factors, write_mlx
from peak_memory import begin_peak, in_use, peak_since, rounding
from published_checkpoint import awq, fp8, write_published
from quantized_checkpoint import (
    assert_same_matrices,
    logits_of_mlx_lm,
    matrices_of,
    quantizable_config,
    quantize_folder_with_mlx_lm,
    quantize_with_mlx_lm,
    store_in,
    with_stacked_experts,
)
from tiny_checkpoint import PROMPT, tiny_weights, write_checkpoint
from tiny_text_checkpoint import write_text_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.checkpoint.packed.quantization import MICROSCALED
from metal_gen.checkpoint.packed.quantizing import packing_named
from metal_gen.config.quantize import AFFINE_BITS, AFFINE_GROUP_SIZES, Quantize, name_packing
from metal_gen.errors import ConfigError
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix

pytest_plugins = ("fixtures_cli", "fixtures_text")
pytestmark = pytest.mark.metal

FOUR_BITS = Packing(4, 64)
FAMILIES = ["qwen2", "qwen3", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5", "qwen3_5_moe"]


def read(folder, packing=None, dtype="float32"):
    return Checkpoint(folder, packing=packing).weights.load(dtype)


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_and_logits_equal_those_of_mlx_lm(family, make_cache, tmp_path):
    config = quantizable_config(family, tie_word_embeddings=family == "qwen3")
    quantized = quantize_with_mlx_lm(tmp_path, config, FOUR_BITS)
    model = read(tmp_path / "plain", FOUR_BITS)
    assert_same_matrices(model, read(quantized))
    assert any(isinstance(matrix, QuantizedMatrix) for matrix in matrices_of(model))
    expected = logits_of_mlx_lm(quantized)
    logits = np.array(model.logits(model(mx.array([PROMPT]), make_cache(model)))[0])
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("packing", [Packing(3, 32), *MICROSCALED.values()], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_stored_numbers_are_quantized(packing, dtype, tmp_path):
    """Whatever the dtype of computation, the result equals that of quantizing beforehand."""
    config = quantizable_config("qwen3_moe")
    write_checkpoint(tmp_path / "plain", config, tiny_weights(config))
    store_in(tmp_path / "plain", "bfloat16")
    quantized = quantize_folder_with_mlx_lm(tmp_path, packing)
    assert_same_matrices(read(tmp_path / "plain", packing, dtype), read(quantized, dtype=dtype))


@pytest.mark.parametrize("is_turned", [False, True])
def test_experts_may_be_stored_in_one_tensor(is_turned, tmp_path):
    config = quantizable_config("qwen3_moe", num_hidden_layers=1)
    config["moe_intermediate_size"] = 128
    apart = write_checkpoint(tmp_path / "apart", config, tiny_weights(config))
    together = with_stacked_experts(tiny_weights(config), is_turned=is_turned)
    folder = write_checkpoint(tmp_path / "together", config, together)
    assert_same_matrices(read(folder, FOUR_BITS), read(apart, FOUR_BITS))


def test_rows_that_are_not_whole_groups_stay_as_they_are(tmp_path):
    config = {**quantizable_config("qwen3"), "intermediate_size": 96}
    model = read(write_checkpoint(tmp_path, config, tiny_weights(config)), FOUR_BITS)
    mlp = model.layers[0].mlp
    assert isinstance(mlp.gate_up.weight, QuantizedMatrix)
    assert not isinstance(mlp.down.weight, QuantizedMatrix)


@pytest.mark.parametrize(
    ("family", "stored", "packing"),
    [
        *product(("qwen3", "qwen3_moe"), ("float32", "bfloat16"), (FOUR_BITS,)),
        ("qwen3", "bfloat16", MICROSCALED["mxfp4"]),
        ("qwen3_moe", "bfloat16", MICROSCALED["nvfp4"]),
    ],
    ids=str,
)
def test_memory_equals_the_plan(family, stored, packing, tmp_path):
    """The memory is so small that the unquantized weights would not fit."""
    config = {**quantizable_config(family, num_hidden_layers=6), "intermediate_size": 4096}
    if family == "qwen3_moe":
        config["moe_intermediate_size"] = 512
    write_checkpoint(tmp_path, config, tiny_weights(config))
    store_in(tmp_path, stored)
    weights = Checkpoint(tmp_path, packing=packing).weights
    before = begin_peak()
    model = weights.load("float32")
    taken, peak, more = in_use() - before, peak_since(before), rounding(model)
    assert abs(taken - weights.nbytes("float32") - more) < 0.03 * taken
    assert peak < 1.05 * weights.loading_peak_bytes("float32") + more
    if packing == FOUR_BITS:  # Quantizing to the others needs more than this small model.
        assert weights.loading_peak_bytes("float32") < 0.7 * Checkpoint(tmp_path).weights.nbytes(stored)
    assert model.config.num_hidden_layers == 6


@pytest.mark.parametrize("value", [4, "4", "4g64"])
def test_a_packing_has_one_spelling(value):
    assert Quantize()(value) == "4"


def test_every_packing_of_mlx_can_be_asked_for():
    named = [packing_named(Quantize()(f"{b}g{g}")) for b in AFFINE_BITS for g in AFFINE_GROUP_SIZES]
    assert named == [Packing(bits, size) for bits in AFFINE_BITS for size in AFFINE_GROUP_SIZES]
    assert {name: packing_named(Quantize()(name)) for name in MICROSCALED} == MICROSCALED


@pytest.mark.parametrize("value", [7, 4.0, True, "", "4g48", "4G32", "nf4", "4 "])
def test_no_other_can(value):
    with pytest.raises(ValueError, match="must be 2, 3, 4, 5, 6 or 8 bits"):
        Quantize()(value)


def test_quantized_weights_stay_as_they_are_or_are_refused(tmp_path):
    folder = quantize_with_mlx_lm(tmp_path, quantizable_config("qwen3"), FOUR_BITS)
    assert_same_matrices(read(folder, FOUR_BITS), read(folder))
    with pytest.raises(
        ConfigError,
        match=r"embed_tokens in model\.safetensors is already quantized, with 4 bits in groups of 64",
    ):
        Checkpoint(folder, packing=Packing(8, 64))


def test_fp8_is_quantized_and_whole_numbers_are_not(tmp_path):
    published, plain = write_published(tmp_path / "fp8", fp8(None, "(out, 1)"), "qwen3")
    store_in(plain, "float16")  # The dtype of the other tensors, and the one that FP8 counts as.
    assert_same_matrices(read(published, FOUR_BITS), read(plain, FOUR_BITS))
    published, _ = write_published(tmp_path / "awq", awq(32), "qwen3")
    with pytest.raises(
        ConfigError,
        match=r"q_proj in model\.safetensors is already quantized, with 4 bits in groups of 32, but",
    ):
        Checkpoint(published, packing=FOUR_BITS)


def test_an_adapter_is_merged_before(tmp_path):
    config = quantizable_config("qwen3")
    weights = tiny_weights(config)
    folder = write_checkpoint(tmp_path / "plain", config, weights)
    name = "model.layers.0.mlp.down_proj"
    factors = random_factors({name: (64, 128)})
    adapter = write_mlx(tmp_path / "adapter", factors)
    adapted = Checkpoint(folder, adapters=[adapter], packing=FOUR_BITS).weights.load("float32")
    down, up = factors[name]
    plain = mx.addmm(mx.array(weights[f"{name}.weight"]), mx.array(2.0 * up), mx.array(down))
    found = adapted.layers[0].mlp.down.weight.dequantized()
    expected = QuantizedMatrix.quantize(plain, FOUR_BITS).dequantized()
    assert mx.allclose(found, expected, atol=1e-5)


@pytest.fixture(scope="module")
def quantizable(tmp_path_factory):
    """A model with random weights, whose text depends on the seed."""
    return write_text_checkpoint(tmp_path_factory.mktemp("text"), hidden_size=64, intermediate_size=128)


def test_a_command_says_it_and_plans_with_it(run_here, quantizable):
    options = ("--prompt", "a", "-n", "2", "--seed", "1", "--json")
    for model, quantize in ((("--quantize", "4"), "4"), ((), None)):
        record = json.loads(run_here("generate", "-m", quantizable, *model, *options).stdout)
        assert record["quantize"] == quantize
    plain, packed = (
        json.loads(run_here("plan", quantizable, *options, "--json").stdout)
        for options in ((), ("--quantize", "4g32"))
    )
    assert (plain["quantize"], packed["quantize"]) == (None, "4g32")
    assert packed["weights_bytes"] < 0.3 * plain["weights_bytes"]
    table = run_here("plan", quantizable, "--quantize", "4g32").stdout
    assert b"quantized to 4 bits in groups of 32" in table


def test_a_run_is_not_resumed_with_other_bits(run_here, quantizable, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": 1, "prompt": "a"}\n')
    command = ("batch", "in.jsonl", "-o", "out.jsonl", "-m", quantizable, "-n", "2", "--resume")
    assert run_here(*command, "--quantize", "4").code == 0
    refused = run_here(*command, "--quantize", "8")
    assert refused.code == 2
    assert "out.jsonl was started with quantize 4, but this run has quantize 8" in refused.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("4", None, None), "4"),
        (("4", 32, None), "4g32"),
        (("4", 64, "affine"), "4g64"),
        (("4", None, "mxfp4"), "mxfp4"),
        (("8", 32, "mxfp8"), "mxfp8"),
        (("nvfp4", None, "nvfp4"), "nvfp4"),
    ],
)
def test_mlx_lm_s_three_options_are_one_here(options, named):
    assert name_packing(*options) == named


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("mxfp4", None, "affine"), "mxfp4 has 4 bits in groups of 32"),
        (("mxfp4", 64, None), "mxfp4 has 4 bits in groups of 32"),
        (("8", 32, "mxfp4"), "mxfp4 has 4 bits in groups of 32"),
        (("4g32", 64, None), "4g32 has a group size already"),
    ],
)
def test_three_that_contradict_each_other_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        name_packing(*options)
