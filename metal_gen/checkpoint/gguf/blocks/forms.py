"""The supported blocks of GGUF files, and the form that each is read into.

If MLX has groups of numbers with exactly the same values, blocks become those: q becomes q * scale + bias. If
the numbers of a table or the products of two integers fit into 8 bits, those are the q. All other blocks
become unquantized numbers.

Source: `ggml-common.h` and `ggml-quants.c` of https://github.com/ggml-org/llama.cpp
"""

from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.checkpoint.gguf.blocks import k_quants, small, tables
from metal_gen.models.matrices.quantized import Packing

# Blocks (N, bytes) uint8 become unquantized numbers (N, numbers); or integers (N, numbers) uint8 with the
# scales and, if they are affine, the biases of their groups.
Decoded = tuple[mx.array, ...]


@dataclass(frozen=True)
class BlockForm:
    """A type of blocks.

    Attributes:
        numbers: Numbers per block.
        nbytes: Bytes per block.
        decode: Function that decodes blocks.
        packing: Packing of the resulting matrix; None if it is unquantized.
    """

    numbers: int
    nbytes: int
    decode: Callable[[mx.array], Decoded]
    packing: Packing | None = None


def _plain(dtype: mx.Dtype) -> Callable[[mx.array], Decoded]:
    return lambda blocks: (blocks.view(dtype),)


FORMS = {
    "F32": BlockForm(1, 4, _plain(mx.float32)),
    "F16": BlockForm(1, 2, _plain(mx.float16)),
    "BF16": BlockForm(1, 2, _plain(mx.bfloat16)),
    "Q4_0": BlockForm(32, 18, small.q4_0, Packing(4, 32)),
    "Q4_1": BlockForm(32, 20, small.q4_1, Packing(4, 32)),
    "Q5_0": BlockForm(32, 22, small.q5_0, Packing(5, 32)),
    "Q5_1": BlockForm(32, 24, small.q5_1, Packing(5, 32)),
    "Q8_0": BlockForm(32, 34, small.q8_0, Packing(8, 32)),
    "Q2_K": BlockForm(256, 84, k_quants.q2_k),
    "Q3_K": BlockForm(256, 110, k_quants.q3_k, Packing(8, 128)),
    "Q4_K": BlockForm(256, 144, k_quants.q4_k, Packing(4, 32)),
    "Q5_K": BlockForm(256, 176, k_quants.q5_k, Packing(5, 32)),
    "Q6_K": BlockForm(256, 210, k_quants.q6_k),
    "IQ4_NL": BlockForm(32, 18, tables.iq4_nl, Packing(8, 32)),
    "IQ4_XS": BlockForm(256, 136, tables.iq4_xs, Packing(8, 32)),
    "MXFP4": BlockForm(32, 17, tables.mxfp4, Packing(4, 32, "mxfp4")),
}
QUANTIZED = frozenset(name for name, form in FORMS.items() if form.numbers > 1)
