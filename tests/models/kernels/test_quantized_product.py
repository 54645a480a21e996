"""The kernel for products with matrices in 4 bits: its numbers, and when it is not used."""

from dataclasses import replace

import mlx.core as mx
import pytest
from cpp_kernel import kernels_as_on_a_gpu, needs_compiler
from failing_kernels import FAILING_KERNELS
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.device.backend import runs_on_cuda
from metal_gen.models.kernels import quantized_trial
from metal_gen.models.kernels.choice import BY_KERNEL, PLAIN
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.dialect import CUDA, METAL, Code
from metal_gen.models.kernels.fitted import fitted
from metal_gen.models.kernels.quantized_product import (
    GROUP_SIZES,
    OF_FEW_OUTPUTS,
    OF_MANY_OUTPUTS,
    can_multiply,
    quantized_product,
)
from metal_gen.models.kernels.quantized_source import CODE
from metal_gen.models.kernels.quantized_trial import choose_quantized_products
from metal_gen.models.matrices.adapted import parts_of
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix
from metal_gen.models.projections import projections

FOUR = Packing(4, 64)
DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16}


@pytest.fixture
def as_on_cuda(monkeypatch, tmp_path, programs):
    """The kernel is tried as with CUDA, and runs as C++."""
    with kernels_as_on_a_gpu(quantized_trial, monkeypatch, tmp_path, programs) as kernels:
        yield kernels


def normal(shape, dtype, seed):
    return mx.random.normal(shape, key=mx.random.key(seed)).astype(dtype)


def exact_product(rows, matrix):
    return rows.astype(mx.float32) @ matrix.computing_in(mx.float32).dequantized().T


def assert_exact(found, exact):
    tolerance = quantized_trial.TOLERANCE[found.dtype]
    assert mx.abs(found.astype(mx.float32) - exact).max() <= tolerance * mx.abs(exact).max()


def matrix_of(outputs, inputs, packing=FOUR, dtype=mx.bfloat16):
    return QuantizedMatrix.quantize(normal((outputs, inputs), dtype, 1), packing)


@needs_compiler
@pytest.mark.parametrize("shares", [OF_FEW_OUTPUTS, OF_MANY_OUTPUTS], ids=["few outputs", "many outputs"])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("rows", "inputs"), [(1, 256), (3, 1280), (8, 2304)])
def test_the_kernel_computes_what_plain_operations_do(as_on_cuda, dtype, group_size, shares, rows, inputs):
    dtype = DTYPES[dtype]
    matrix = matrix_of(64, inputs, Packing(4, group_size), dtype)
    x = normal((rows, inputs), dtype, 0)
    assert_exact(quantized_product(x, *matrix.arrays, shares), exact_product(x, matrix))


@pytest.mark.parametrize("dialect", [METAL, CUDA], ids=["Metal", "CUDA"])
def test_headers_have_whole_lines(dialect):
    """MLX adds its own code, which would become a part of a macro."""
    assert (dialect.header + CODE.header).endswith("\n")
    assert dialect.header.endswith("\n")


@needs_compiler
def test_a_row_does_not_depend_on_the_others(as_on_cuda):
    matrix, rows = matrix_of(32, 768), normal((8, 768), mx.bfloat16, 0)
    together = quantized_product(rows, *matrix.arrays)
    for place in range(8):
        alone = quantized_product(rows[place : place + 1], *matrix.arrays)
        assert mx.array_equal(alone[0], together[place])


@needs_compiler
@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
def test_a_matrix_multiplies_few_rows_by_the_kernel(as_on_cuda, bias):
    plain = matrix_of(48, 512)
    matrix = replace(plain, by_kernel=True)
    bias = normal((48,), mx.bfloat16, 2) if bias else None
    for count in (2, 8, 9):
        rows = normal((count, 512), mx.bfloat16, 0)
        as_on_cuda.names.clear()
        found = matrix.times(rows, bias)
        assert as_on_cuda.names == ["quantized_product"] * (count <= 8)
        if count > 8:
            assert mx.array_equal(found, plain.times(rows, bias))
        else:
            assert_exact(found, exact_product(rows, plain) + (0 if bias is None else bias.astype(mx.float32)))


@pytest.mark.metal
def test_products_are_those_of_plain_operations_here():
    """With CUDA they are the kernel's, elsewhere MLX's."""
    choice = choose_quantized_products([FOUR], "bfloat16")
    assert choice.refused is None
    assert choice.by_kernel == runs_on_cuda()
    for outputs, inputs in ((1040, 2560), (16_384, 512)):
        plain = matrix_of(outputs, inputs)
        for count in (1, 5):
            rows = normal((count, inputs), mx.bfloat16, 0)
            found = replace(plain, by_kernel=choice.by_kernel).times(rows)
            if choice.by_kernel:
                assert_exact(found, exact_product(rows, plain))
            else:
                assert mx.array_equal(found, plain.times(rows))


@pytest.mark.parametrize(
    ("rows", "matrix", "is_possible"),
    [
        ((8, 512), (32, 512, FOUR), True),
        ((1, 512), (32, 512, FOUR), False),
        ((1, 512), (16_384, 512, FOUR), True),
        ((9, 512), (32, 512, FOUR), False),
        ((2, 512), (40, 512, FOUR), False),
        ((2, 256), (16_400, 256, FOUR), False),
        ((2, 384), (32, 384, FOUR), False),
        ((2, 512), (32, 512, Packing(8, 64)), False),
    ],
    ids=[
        "most rows",
        "one row",
        "one row of a large matrix",
        "too many rows",
        "part of a tile",
        "part of two tiles",
        "part of a span",
        "8 bits",
    ],
)
def test_arrays_that_the_kernel_takes(rows, matrix, is_possible):
    outputs, inputs, packing = matrix
    made = matrix_of(outputs, inputs, packing)
    assert can_multiply(mx.zeros(rows, mx.bfloat16), made.packed, made.scales) == is_possible
    assert not can_multiply(mx.zeros(rows, mx.float32), made.packed, made.scales)
    exact = made.computing_in(mx.float32)
    assert not can_multiply(mx.zeros(rows, mx.float32), exact.packed, exact.scales)


@needs_compiler
def test_a_device_that_computes_it_right_uses_it(as_on_cuda):
    assert choose_quantized_products([FOUR, Packing(8, 64)], "bfloat16") == BY_KERNEL
    ran = len(as_on_cuda.names)
    quantized_trial._chosen.cache_clear()
    assert choose_quantized_products([FOUR], "bfloat16") == BY_KERNEL
    assert len(as_on_cuda.names) == ran


@pytest.mark.parametrize(("run", "reason"), FAILING_KERNELS)
def test_a_kernel_that_fails_its_trial_is_left_alone(as_on_cuda, monkeypatch, run, reason):
    monkeypatch.setattr(Code, "__call__", run)
    choice = choose_quantized_products([FOUR], "bfloat16")
    assert not choice.by_kernel
    assert choice.refused.startswith(reason)


@pytest.mark.parametrize(
    ("packings", "dtype"),
    [
        ([], "bfloat16"),
        ([FOUR], "float32"),
        ([Packing(8, 64)], "bfloat16"),
        ([Packing(4, 32, "mxfp4")], "float16"),
    ],
    ids=["unquantized", "float32", "8 bits", "mxfp4"],
)
def test_matrices_without_a_kernel(as_on_cuda, packings, dtype):
    assert choose_quantized_products(packings, dtype) == PLAIN
    assert not as_on_cuda.names


def test_there_is_no_kernel_without_cuda(monkeypatch):
    monkeypatch.setattr(quantized_trial, "runs_on_cuda", lambda: False)
    assert choose_quantized_products([FOUR], "bfloat16") == PLAIN


@needs_compiler
@pytest.mark.parametrize("family", ["qwen3", "qwen3_5"])
def test_a_model_by_the_kernel_is_the_plain_one(as_on_cuda, family, make_cache, tmp_path):
    config = tiny_config(family, hidden_size=256, intermediate_size=256, vocab_size=64)
    folder = write_checkpoint(tmp_path / "model", config)
    exact, plain = (Checkpoint(folder, packing=FOUR).weights.load(dtype) for dtype in ("float32", "float16"))
    model = fitted(plain, ModelKernels(quantized_products=BY_KERNEL))
    tokens, found = mx.array([[7, 1, 55]]), []
    for each in (exact, plain, model):
        as_on_cuda.names.clear()
        found.append(each.logits(each(tokens, make_cache(each, dtype="float32"))[0]).astype(mx.float32))
        mx.eval(found[-1])
        # The tiny model's other matrices have rows of too few numbers.
        assert (as_on_cuda.names.count("quantized_product") >= 2 * len(plain.layers)) == (each is model)
    for each in found[1:]:
        assert mx.abs(each - found[0]).max() <= 0.02 * mx.abs(found[0]).max()


def matrices_by_kernel(model):
    parts = [part for linear in projections(model) for part in parts_of(linear.weight)]
    return [part.by_kernel for part in parts if isinstance(part, QuantizedMatrix)]


@pytest.mark.parametrize("family", ["qwen2_moe", "qwen3", "qwen3_next"])
def test_all_quantized_projections_of_a_model_get_the_kernel_and_lose_it(family, tmp_path):
    folder = write_checkpoint(tmp_path / "model", tiny_config(family, hidden_size=64, intermediate_size=64))
    plain = Checkpoint(folder, packing=FOUR).weights.load("bfloat16")
    model = fitted(plain, ModelKernels(quantized_products=BY_KERNEL))
    assert matrices_by_kernel(model)
    assert all(matrices_by_kernel(model))
    assert len(matrices_by_kernel(model)) == len(matrices_by_kernel(plain))
    assert not any(matrices_by_kernel(fitted(model, ModelKernels())))
