"""The kernel for residual sums and their norms: its numbers, and when it is not used."""

import mlx.core as mx
import pytest
from cpp_kernel import kernels_as_on_a_gpu, needs_compiler
from failing_kernels import FAILING_KERNELS
from on_device import cpu_only

from metal_gen.device_checks import models as whole_models
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.kernels import add_norm
from metal_gen.models.kernels.add_norm import (
    MOST_ROWS,
    SMALLEST_SIZE,
    add_rms_norm,
    can_add,
    choose_add_norm,
)
from metal_gen.models.kernels.choice import BY_KERNEL, PLAIN
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.kernels.fitted import fitted
from metal_gen.models.layers import RMSNorm, gated

SIZES = {"less than a load each": 64, "a part of a load": 264, "several loads": 8200}


@pytest.fixture
def as_on_a_gpu(monkeypatch, tmp_path, programs):
    """Kernels are tried as on a GPU, and run as C++."""
    with kernels_as_on_a_gpu(add_norm, monkeypatch, tmp_path, programs) as kernels:
        yield kernels


def normal(shape, dtype, seed):
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_kernel_computes_what_plain_operations_do(as_on_a_gpu, size, dtype):
    dtype = getattr(mx, dtype)
    rows, added, weight = (normal(shape, dtype, i) for i, shape in enumerate([(3, size), (3, size), (size,)]))
    sums, normed = add_rms_norm(rows, added, weight, mx.array([1e-6]))
    assert mx.array_equal(sums, rows + added)
    expected = mx.fast.rms_norm(rows + added, weight, 1e-6)
    roundings = {mx.float32: 4e-6, mx.float16: 2e-3, mx.bfloat16: 1.6e-2}[dtype]
    assert mx.allclose(normed, expected, rtol=roundings, atol=roundings * 1e-2).item()


@pytest.mark.metal
@pytest.mark.parametrize("rows", [1, MOST_ROWS])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_norm_that_adds_by_kernel_where_it_can_is_the_plain_one(rows, dtype):
    """On a CPU both are plain."""
    size, tolerance = 2560, add_norm.TOLERANCE[dtype]
    plain = RMSNorm(normal((size,), getattr(mx, dtype), 2), 1e-6)
    chosen = choose_add_norm(size, dtype)
    assert chosen.refused is None
    norm = RMSNorm(plain.weight, plain.eps, adds_by_kernel=chosen.by_kernel)
    pair = [normal((rows, size), getattr(mx, dtype), seed) for seed in range(2)]
    for found, expected in zip(norm.of_sum(*pair), plain.of_sum(*pair), strict=True):
        assert mx.abs(found - expected).max().item() <= tolerance * mx.abs(expected).max().item()


@needs_compiler
@pytest.mark.parametrize("name", ["qwen2, sliding window", "qwen3_moe", "qwen3_5"])
def test_texts_by_the_kernel_are_those_of_plain_operations(as_on_a_gpu, name):
    family = whole_models._Family(ModelConfig.from_hf({**whole_models.BASE, **whole_models.MODELS[name]}))
    model = fitted(family.model, ModelKernels(residual_norms=BY_KERNEL))
    for found, expected in whole_models._decoded(family, model):
        assert mx.abs(found - expected).max().item() < 1e-4
    layers = len(model.layers)
    assert set(as_on_a_gpu.names) == {"add_rms_norm"}
    # Two norms of a layer follow a sum; prompts are too long for the kernel.
    assert len(as_on_a_gpu.names) % (2 * layers) == 0


@pytest.mark.parametrize(
    ("rows", "added", "weight", "is_possible"),
    [
        (((2, 64), mx.float32), ((2, 64), mx.float32), ((64,), mx.float32), True),
        (((MOST_ROWS, 64), mx.float16), ((MOST_ROWS, 64), mx.float16), ((64,), mx.float16), True),
        (((MOST_ROWS + 1, 64), mx.float16), ((MOST_ROWS + 1, 64), mx.float16), ((64,), mx.float16), False),
        (((2, 60), mx.bfloat16), ((2, 60), mx.bfloat16), ((60,), mx.bfloat16), False),
        (((2, 64), mx.bfloat16), ((2, 64), mx.float32), ((64,), mx.bfloat16), False),
        (((2, 64), mx.bfloat16), ((2, 64), mx.bfloat16), ((64,), mx.float32), False),
    ],
    ids=["few rows", "most rows", "too many rows", "part of a load", "other dtype", "other dtype of weights"],
)
def test_arrays_that_the_kernel_takes(rows, added, weight, is_possible):
    assert can_add(*(mx.zeros(shape, dtype) for shape, dtype in (rows, added, weight))) == is_possible


@pytest.mark.parametrize(("run", "reason"), FAILING_KERNELS)
def test_a_kernel_that_fails_its_trial_is_left_alone(as_on_a_gpu, monkeypatch, run, reason):
    monkeypatch.setattr(Code, "__call__", run)
    choice = choose_add_norm(SMALLEST_SIZE, "float32")
    assert not choice.by_kernel
    assert choice.refused.startswith(reason)


@cpu_only
def test_there_is_no_kernel_on_a_cpu():
    assert choose_add_norm(SMALLEST_SIZE, "float32") == PLAIN


@needs_compiler
@pytest.mark.parametrize("size", [SMALLEST_SIZE - 8, SMALLEST_SIZE + 2], ids=["too small", "part of a load"])
def test_rows_that_do_not_gain_stay_plain(as_on_a_gpu, size):
    assert choose_add_norm(SMALLEST_SIZE, "bfloat16").by_kernel
    assert choose_add_norm(size, "bfloat16") == PLAIN


def test_halves_of_a_single_row_are_those_of_many():
    rows = normal((3, 2 * 40), mx.float32, 0)
    alone = mx.concatenate([gated(rows[i : i + 1]) for i in range(3)])
    assert mx.allclose(alone, gated(rows), rtol=1e-6)
