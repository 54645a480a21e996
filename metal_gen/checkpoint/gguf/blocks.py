"""The blocks of numbers of a GGUF file, as arrays that MLX computes with.

Blocks of 4, 5 and 8 bits become affine groups of 32, which stand for the same numbers: q becomes
q * scale + bias. Blocks whose scales are those of 16 numbers, which MLX has no groups of, become plain
numbers.

Source: `ggml-common.h` and `ggml-quants.c` of https://github.com/ggml-org/llama.cpp

Axes: N blocks.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import mlx.core as mx

from metal_gen.checkpoint.gguf.header import GgufTensor
from metal_gen.errors import CheckpointError
from metal_gen.models.matrices.quantized import Packing

GROUP = 32
# Numbers that are converted at one time, and what each takes then at most.
PART_NUMBERS = 1 << 21
CONVERTING_BYTES = 12

# Blocks (N, bytes) uint8 to plain numbers (N, numbers), or to integers (N, numbers) uint8 with scales and
# biases (N, numbers / 32) in float32.
Decoded = tuple[mx.array, ...]


@dataclass(frozen=True)
class BlockForm:
    """A type of blocks.

    Attributes:
        numbers: Of a block.
        nbytes: Of a block.
        decode: What it stands for.
        bits: Of the packed numbers that it becomes; None where it becomes plain ones.
    """

    numbers: int
    nbytes: int
    decode: Callable[[mx.array], Decoded]
    bits: int | None = None

    @property
    def packing(self) -> Packing | None:
        """Of the matrix that it becomes; None where that is one of plain numbers."""
        return None if self.bits is None else Packing(self.bits, GROUP)


def _half(blocks: mx.array, place: int) -> mx.array:
    """The float16 at a byte of each block, (N, 1) in float32."""
    return mx.contiguous(blocks[:, place : place + 2]).view(mx.float16).astype(mx.float32)


def _nibbles(rows: mx.array) -> mx.array:
    """The lower halves of bytes and then the upper ones, (..., n) to (..., 2n)."""
    return mx.concatenate([rows & 15, rows >> 4], axis=-1)


def _bits(rows: mx.array, width: int) -> mx.array:
    """The lowest so many bits of bytes, then the next ones, and so on, (..., n) to (..., 8 / width, n)."""
    shifts = mx.arange(0, 8, width, dtype=mx.uint8)[:, None]
    return mx.bitwise_and(rows[..., None, :] >> shifts, 2**width - 1)


def _plain(dtype: mx.Dtype) -> Callable[[mx.array], Decoded]:
    return lambda blocks: (blocks.view(dtype),)


def _q4_0(blocks: mx.array) -> Decoded:
    scale = _half(blocks, 0)
    return _nibbles(blocks[:, 2:]), scale, -8 * scale


def _q4_1(blocks: mx.array) -> Decoded:
    return _nibbles(blocks[:, 4:]), _half(blocks, 0), _half(blocks, 2)


def _fifth_bits(blocks: mx.array) -> mx.array:
    """The highest bits of 32 numbers, in the order of the numbers, (N, 4) to (N, 32)."""
    return (_bits(blocks, 1).swapaxes(1, 2)).reshape(-1, GROUP) << 4


def _q5_0(blocks: mx.array) -> Decoded:
    scale = _half(blocks, 0)
    return _nibbles(blocks[:, 6:]) | _fifth_bits(blocks[:, 2:6]), scale, -16 * scale


def _q5_1(blocks: mx.array) -> Decoded:
    return _nibbles(blocks[:, 8:]) | _fifth_bits(blocks[:, 4:8]), _half(blocks, 0), _half(blocks, 2)


def _q8_0(blocks: mx.array) -> Decoded:
    scale = _half(blocks, 0)
    return mx.bitwise_xor(blocks[:, 2:], 128), scale, -128 * scale


def _k_scales(blocks: mx.array) -> tuple[mx.array, mx.array]:
    """Scales and biases of eight groups of 32, whose 6 bits each are in 12 bytes after two float16."""
    lower, upper, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = mx.concatenate([lower & 63, (rest & 15) | ((lower >> 2) & 48)], axis=1)
    minima = mx.concatenate([upper & 63, (rest >> 4) | ((upper >> 2) & 48)], axis=1)
    return _half(blocks, 0) * scales, -(_half(blocks, 2) * minima)


def _q4_k(blocks: mx.array) -> Decoded:
    values = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 256)
    return values, *_k_scales(blocks)


def _q5_k(blocks: mx.array) -> Decoded:
    values = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 256)
    highest = _bits(blocks[:, 16:48], 1).reshape(-1, 256) << 4
    return values | highest, *_k_scales(blocks)


def _q6_k(blocks: mx.array) -> Decoded:
    lower = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 256)
    upper = _bits(blocks[:, 128:192].reshape(-1, 2, 32), 2).reshape(-1, 256)
    values = (lower | (upper << 4)).reshape(-1, 16, 16).astype(mx.float32) - 32
    scales = _half(blocks, 208) * mx.contiguous(blocks[:, 192:208]).view(mx.int8)
    return ((values * scales[..., None]).reshape(-1, 256),)


FORMS = {
    "F32": BlockForm(1, 4, _plain(mx.float32)),
    "F16": BlockForm(1, 2, _plain(mx.float16)),
    "BF16": BlockForm(1, 2, _plain(mx.bfloat16)),
    "Q4_0": BlockForm(32, 18, _q4_0, 4),
    "Q4_1": BlockForm(32, 20, _q4_1, 4),
    "Q5_0": BlockForm(32, 22, _q5_0, 5),
    "Q5_1": BlockForm(32, 24, _q5_1, 5),
    "Q8_0": BlockForm(32, 34, _q8_0, 8),
    "Q4_K": BlockForm(256, 144, _q4_k, 4),
    "Q5_K": BlockForm(256, 176, _q5_k, 5),
    "Q6_K": BlockForm(256, 210, _q6_k),
}
QUANTIZED = frozenset(name for name, form in FORMS.items() if form.numbers > 1)


def read_blocks(tensor: GgufTensor, dtype: mx.Dtype) -> list[mx.array]:
    """Read a tensor, some rows at a time.

    Args:
        tensor: (..., out, in) or (in,), of a type in `FORMS`.
        dtype: Of plain numbers, scales and biases.

    Returns:
        Plain numbers of its shape; or packed numbers, scales and biases, as `QuantizedMatrix` has them.

    Raises:
        CheckpointError: The file cannot be read any more.
    """
    form = FORMS[tensor.dtype]
    *outer, width = tensor.shape
    rows, row_bytes = math.prod(outer), width // form.numbers * form.nbytes
    step = max(1, PART_NUMBERS // width)
    if form.packing is None:
        arrays = [mx.zeros((rows, width), dtype)]
    else:
        scales = form.packing.scales_shape((rows, width))
        packed = mx.zeros(form.packing.packed_shape((rows, width)), mx.uint32)
        arrays = [packed, mx.zeros(scales, dtype), mx.zeros(scales, dtype)]
    for begin in range(0, rows, step):
        count = min(step, rows - begin)
        blocks = _read_bytes(tensor, begin * row_bytes, count * row_bytes).reshape(-1, form.nbytes)
        _fill(arrays, begin, begin + count, form, form.decode(blocks))
    arrays = [array.reshape(*outer, -1) for array in arrays]
    mx.eval(arrays)
    return arrays


def converting_bytes(count: int) -> int:
    """The most that `read_blocks` takes besides what it returns, of a tensor of so many numbers."""
    return CONVERTING_BYTES * min(PART_NUMBERS, count)


def _fill(arrays: Sequence[mx.array], begin: int, end: int, form: BlockForm, decoded: Decoded) -> None:
    """Write these rows in place, which MLX does where nothing else knows the array."""
    first, *others = decoded
    parts = [first if form.bits is None else pack(first, form.bits), *others]
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
        values: (N, n) uint8, of so many bits each; n is a multiple of 32.
        bits: Of each.

    Returns:
        (N, n * bits / 32) uint32.
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
