"""Reads the blocks of a GGUF file into arrays that MLX computes with.

Axes: N blocks.
"""

import math
from collections.abc import Sequence
from functools import reduce

import mlx.core as mx

from metal_gen.checkpoint.gguf.block_forms import FORMS, BlockForm, Decoded
from metal_gen.checkpoint.gguf.header import GgufTensor
from metal_gen.errors import CheckpointError

# Numbers to convert at a time, and the most bytes that each takes meanwhile.
PART_NUMBERS = 1 << 21
CONVERTING_BYTES = 12


def read_blocks(tensor: GgufTensor, dtype: mx.Dtype) -> list[mx.array]:
    """Read a tensor, some rows at a time.

    Args:
        tensor: Tensor (..., out, in) or (in,), of a type in `FORMS`.
        dtype: Dtype of unquantized numbers, scales and biases.

    Returns:
        Unquantized numbers in the shape of the tensor; or packed numbers, scales and, if affine, biases, as
        in `QuantizedMatrix`.

    Raises:
        CheckpointError: The file cannot be read any more.
    """
    form = FORMS[tensor.dtype]
    *outer, width = tensor.shape
    rows, row_bytes = math.prod(outer), width // form.numbers * form.nbytes
    step = max(1, PART_NUMBERS // width)
    arrays = _empty(form, (rows, width), dtype)
    for begin in range(0, rows, step):
        count = min(step, rows - begin)
        blocks = _read_bytes(tensor, begin * row_bytes, count * row_bytes).reshape(-1, form.nbytes)
        _fill(arrays, begin, begin + count, form, form.decode(blocks))
    arrays = [array.reshape(*outer, -1) for array in arrays]
    mx.eval(arrays)
    return arrays


def _empty(form: BlockForm, shape: tuple[int, int], dtype: mx.Dtype) -> list[mx.array]:
    packing = form.packing
    if packing is None:
        return [mx.zeros(shape, dtype)]
    packed, scales = mx.zeros(packing.packed_shape(shape), mx.uint32), packing.scales_shape(shape)
    if not packing.has_biases:
        return [packed, mx.zeros(scales, mx.uint8)]
    return [packed, mx.zeros(scales, dtype), mx.zeros(scales, dtype)]


def converting_bytes(count: int) -> int:
    """Return the peak memory of `read_blocks`, without its result, for a tensor of `count` numbers."""
    return CONVERTING_BYTES * min(PART_NUMBERS, count)


def _fill(arrays: Sequence[mx.array], begin: int, end: int, form: BlockForm, decoded: Decoded) -> None:
    """Write these rows in place. MLX does that if nothing else refers to the array."""
    first, *others = decoded
    parts = [first if form.packing is None else pack(first, form.packing.bits), *others]
    for array, part in zip(arrays, parts, strict=True):
        array[begin:end] = part.reshape(end - begin, -1).astype(array.dtype)
    mx.eval(arrays)


def _read_bytes(tensor: GgufTensor, begin: int, count: int) -> mx.array:
    try:
        with tensor.path.open("rb") as file:
            file.seek(tensor.offset + begin)
            data = file.read(count)
    except OSError as error:
        raise CheckpointError(f"cannot read {tensor.path}: {error.strerror}") from error
    if len(data) < count:
        raise CheckpointError(
            f"{tensor.path} is damaged: it is cut short within {tensor.name}",
            "download or copy the file again",
        )
    return mx.array(memoryview(data))  # type: ignore[arg-type]


def pack(values: mx.array, bits: int) -> mx.array:
    """Pack integers as MLX does, as one stream of bits that begins with the lowest.

    Args:
        values: Integers of `bits` bits, (N, n) uint8; n is a multiple of 32.
        bits: Bits per integer.

    Returns:
        Packed integers, (N, n * bits / 32) uint32.
    """
    eights = values.reshape(len(values), -1, 8)
    of_eight = []
    for place in range(0, 8 * bits, 8):
        shifts = {index: bits * index - place for index in range(8)}
        parts = [
            eights[..., index] << shift if shift >= 0 else eights[..., index] >> -shift
            for index, shift in shifts.items()
            if -bits < shift < 8
        ]
        of_eight.append(reduce(mx.bitwise_or, parts))
    return mx.stack(of_eight, axis=-1).reshape(len(values), -1).view(mx.uint32)
