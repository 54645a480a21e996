"""Tests quantized checkpoints: logits equal mlx-lm's on the same files, and invalid files are refused."""

import json
from itertools import islice
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from peak_memory import begin_peak, in_use, peak_since, peaks_of, rounding
from quantized_checkpoint import assert_in_order, logits_of_mlx_lm, quantizable_config, quantize_with_mlx_lm
from safetensors.numpy import load_file, save_file
from tiny_checkpoint import PROMPT

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.device import backend
from metal_gen.device.backend import dtype_to_compute_in, runs_on_cpu
from metal_gen.device.blas import WHEEL_LIBRARIES, Blas
from metal_gen.errors import CheckpointError
from metal_gen.generation.loading import prepare
from metal_gen.models.matrices import quantized
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix

pytestmark = pytest.mark.metal

FOUR_BITS = Packing(4, 64)
PACKINGS = [
    *(Packing(bits, 64) for bits in (2, 3, 4, 5, 6, 8)),
    Packing(4, 32),
    Packing(4, 32, "mxfp4"),
    Packing(8, 32, "mxfp8"),
    Packing(4, 16, "nvfp4"),
]
FAMILIES = ["qwen2", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_5"]


def assert_like_mlx_lm(folder, make_cache):
    """Compare in float32, the dtype of the tiny weights, so that both see the same scales."""
    model = Checkpoint(folder).weights.load("float32")
    hidden = model(mx.array([PROMPT]), make_cache(model))
    expected = logits_of_mlx_lm(folder)
    assert np.abs(np.array(model.logits(hidden)[0]) - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
def test_logits_are_those_of_mlx_lm_with_every_packing(packing, make_cache, tmp_path):
    assert_like_mlx_lm(quantize_with_mlx_lm(tmp_path, quantizable_config("qwen3"), packing), make_cache)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_mlx_lm_in_every_family(family, make_cache, tmp_path):
    assert_like_mlx_lm(quantize_with_mlx_lm(tmp_path, quantizable_config(family), FOUR_BITS), make_cache)


def mixed(path, module):
    """Quantize one of three fused projections to other bits, and one not at all."""
    if "v_proj" in path or "up_proj" in path:
        return {"bits": 6, "group_size": 32, "mode": "affine"}
    return "k_proj" not in path and "embed_tokens" not in path


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_projections_that_are_one_product_may_be_quantized_differently(family, make_cache, tmp_path):
    assert_like_mlx_lm(
        quantize_with_mlx_lm(tmp_path, quantizable_config(family), FOUR_BITS, mixed), make_cache
    )


def test_an_embedding_that_is_also_the_head_is_quantized_once(make_cache, tmp_path):
    folder = quantize_with_mlx_lm(tmp_path, quantizable_config("qwen3", tie_word_embeddings=True), FOUR_BITS)
    assert_like_mlx_lm(folder, make_cache)
    model = Checkpoint(folder).weights.load("float32")
    assert model.head.weight is model.embedding


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_memory_equals_the_plan(family, tmp_path):
    folder = quantize_with_mlx_lm(tmp_path, quantizable_config(family, vocab_size=4096), FOUR_BITS)
    weights = Checkpoint(folder).weights
    before = begin_peak()
    model = weights.load("float32")
    taken, more = in_use() - before, rounding(model)
    assert abs(taken - weights.nbytes("float32") - more) < 0.05 * taken
    assert peak_since(before) < 1.05 * weights.loading_peak_bytes("float32") + more
    assert model.config.vocab_size == 4096


@pytest.mark.parametrize(
    ("width", "packing", "dtype", "group_size"),
    [
        (64, Packing(4, 64), mx.bfloat16, 32),
        (128, Packing(8, 128), mx.float32, 64),
        (256, Packing(4, 128), mx.float32, 64),
        (256, Packing(4, 128), mx.bfloat16, 128),
        (128, Packing(4, 64), mx.float32, 64),
        (32, Packing(4, 32), mx.float32, 32),
        (32, Packing(4, 32, "mxfp4"), mx.float32, 32),
    ],
)
def test_groups_that_cuda_does_not_multiply_are_halved(monkeypatch, width, packing, dtype, group_size):
    numbers = mx.random.normal((3, 8, width), key=mx.random.key(0)).astype(dtype)
    matrix = QuantizedMatrix.quantize(numbers, packing)
    monkeypatch.setattr(quantized, "runs_on_cuda", lambda: False)
    assert matrix.for_products is matrix
    monkeypatch.setattr(quantized, "runs_on_cuda", lambda: True)
    form = QuantizedMatrix.quantize(numbers, packing).for_products
    assert form.packing == Packing(packing.bits, group_size, packing.mode)
    assert mx.array_equal(form.dequantized(), matrix.dequantized())
    assert_in_order((form,))
    rows = numbers[0, :2]
    expected = rows.astype(mx.float32) @ matrix.dequantized()[1].astype(mx.float32).T
    found = form.of([array[1] for array in form.arrays]).times(rows)
    # On a CPU, MLX adds up in bfloat16 itself.
    assert mx.abs(found.astype(mx.float32) - expected).max() <= 0.05 * mx.abs(expected).max()


def without(name):
    return lambda tensors, config: tensors.pop(name)


def with_quantization(**changes):
    return lambda tensors, config: config["quantization"].update(changes)


def narrower(name):
    def change(tensors, config):
        tensors[name] = np.ascontiguousarray(tensors[name][:, :-1])

    return change


def as_floats(name):
    def change(tensors, config):
        tensors[name] = tensors[name].astype(np.float32)

    return change


def forget(tensors, config):
    config.pop("quantization")
    config.pop("quantization_config")


PROJECTION = "model.layers.1.mlp.down_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without(f"{PROJECTION}.biases"), f"{PROJECTION}.biases is missing"),
        (without(f"{PROJECTION}.weight"), f"{PROJECTION}.weight is missing"),
        (
            narrower(f"{PROJECTION}.scales"),
            f"{PROJECTION}.scales in model.safetensors is 64 x 1, but config.json requires 64 x 2",
        ),
        (as_floats(f"{PROJECTION}.weight"), "is stored as F32, and only U32 are supported"),
        (with_quantization(bits=8), "model.safetensors is 64 x 8, but config.json requires 64 x 16"),
        (with_quantization(bits=7), "bits is 7, and MLX has 2, 3, 4, 5, 6, 8"),
        (with_quantization(group_size=48), "group_size is 48, and MLX has 32, 64, 128"),
        (with_quantization(mode="nf4"), "mode is 'nf4', and MLX has affine, mxfp4, mxfp8, nvfp4"),
        (with_quantization(mode="mxfp8"), "mxfp8 has 8 bits in groups of 32, not 4 in 64"),
        (with_quantization(**{PROJECTION: {"bits": "4"}}), f"{PROJECTION} of quantization in"),
        (
            with_quantization(group_size=128),
            "cannot be quantized with 4 bits in groups of 128, as config.json says",
        ),
        (forget, "scales in model.safetensors belongs to quantized weights, and config.json has no"),
    ],
)
def test_refusals_name_what_does_not_fit(change, message, tmp_path):
    folder = quantize_with_mlx_lm(tmp_path, quantizable_config("qwen3"), FOUR_BITS)
    tensors = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    change(tensors, config)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(folder)
    assert message in str(caught.value)


def test_a_cpu_computes_quantized_weights_in_float32_whatever_its_blas(monkeypatch, tmp_path):
    """On a CPU, MLX adds up products of quantized matrices in the dtype itself."""
    monkeypatch.setattr(backend, "runs_on_cpu", lambda: True)
    monkeypatch.setattr(backend, "blas_in_use", lambda: Blas(Path(WHEEL_LIBRARIES) / "libblas.so"))
    folder = quantize_with_mlx_lm(tmp_path, quantizable_config("qwen3"), FOUR_BITS)
    chosen = [
        dtype_to_compute_in(
            "auto", "bfloat16", has_experts=False, is_quantized=Checkpoint(each).weights.is_quantized
        )
        for each in (tmp_path / "plain", folder)
    ]
    assert chosen == ["bfloat16", "float32"]


@pytest.mark.parametrize(
    "choose", [pytest.param(None, id="alike", marks=pytest.mark.release), pytest.param(mixed, id="mixed")]
)
def test_working_memory_equals_the_plan(choose, tmp_path):
    """Products of matrices in different forms are in memory together with the joined result."""
    config = {**quantizable_config("qwen3", max_position_embeddings=256), "intermediate_size": 4096}
    folder = quantize_with_mlx_lm(tmp_path, config, FOUR_BITS, choose)
    prepared = prepare(Settings(model=str(folder), max_seq_len=256, chunk_size=256))
    prompt = [1 + place % 60 for place in range(250)]
    planned = prepared.plan.total_bytes
    # Now and then the first operations of the next layer are in memory too.
    peaks = sorted(islice(peaks_of(lambda: mx.eval(prepared.load().decoder.prefill(prompt))), 5))
    assert peaks[2] < planned
    if runs_on_cpu():  # On a GPU, the plan has the layers of a larger model that may be queued ahead.
        assert 0.7 * planned < peaks[2]
    assert peaks[-1] < 1.05 * planned
