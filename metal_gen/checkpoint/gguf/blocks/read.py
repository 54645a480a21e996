"""Reads the blocks of a GGUF file into arrays that MLX computes with.

Axes: N blocks.
"""

import math
from collections.abc import Callable, Sequence
from functools import reduce

import mlx.core as mx

from metal_gen.checkpoint.gguf.arrangement import Arrangement, Run, split_runs
from metal_gen.checkpoint.gguf.blocks.forms import FORMS, BlockForm, Decoded
from metal_gen.checkpoint.gguf.header import GgufTensor
from metal_gen.device.extra_memory import wait_for_release
from metal_gen.errors import CheckpointError
from metal_gen.models.matrices.matrix import in_order

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
    form, arrangement = FORMS[tensor.dtype], tensor.arrangement or Arrangement()
    *outer, width = tensor.shape
    rows = math.prod(outer)
    arrays, done = _empty(form, (rows, width), dtype), 0
    for runs in split_runs(arrangement.runs or ((0, rows),), max(1, PART_NUMBERS // width)):
        blocks = _read_rows(tensor, runs, width // form.numbers * form.nbytes).reshape(-1, form.nbytes)
        decoded = form.decode(blocks)
        if arrangement.convert is not None:
            decoded = (_converted(tensor, arrangement.convert, *decoded),)
        count = sum(count for _, count in runs)
        _fill(arrays, done, count, form, decoded, arrangement.parts)
        done += count
    return [in_order(array.reshape(*outer, -1)) for array in arrays]


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


def _converted(tensor: GgufTensor, convert: Callable[[mx.array], mx.array], numbers: mx.array) -> mx.array:
    converted = convert(numbers.astype(mx.float32))
    if not mx.isfinite(converted).all().item():
        raise CheckpointError(
            f"{tensor.path} is damaged: {tensor.name} has numbers that it cannot have",
            "download or copy the file again",
        )
    return converted


def _fill(
    arrays: Sequence[mx.array],
    begin: int,
    count: int,
    form: BlockForm,
    decoded: Decoded,
    parts: tuple[int, ...] | None,
) -> None:
    """Write `count` rows in place. MLX does that if nothing else refers to the array."""
    first, *others = decoded
    of_rows = [first if form.packing is None else pack(first, form.packing.bits), *others]
    for array, numbers in zip(arrays, of_rows, strict=True):
        if parts is not None:
            numbers = numbers.reshape(count, len(parts), -1)[:, mx.array(parts)]
        array[begin : begin + count] = numbers.reshape(count, -1).astype(array.dtype)
    mx.eval(arrays)
    wait_for_release()


def _read_rows(tensor: GgufTensor, runs: Sequence[Run], row_bytes: int) -> mx.array:
    data = bytearray(sum(count for _, count in runs) * row_bytes)
    rest = memoryview(data)
    try:
        with tensor.path.open("rb") as file:
            for first, count in runs:
                file.seek(tensor.offset + first * row_bytes)
                wanted = rest[: count * row_bytes]
                if file.readinto(wanted) < len(wanted):
                    raise CheckpointError(
                        f"{tensor.path} is damaged: it is cut short within {tensor.name}",
                        "download or copy the file again",
                    )
                rest = rest[len(wanted) :]
    except OSError as error:
        raise CheckpointError(f"cannot read {tensor.path}: {error.strerror}") from error
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
