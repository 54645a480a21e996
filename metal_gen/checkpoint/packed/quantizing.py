"""Quantizes matrices while they are read, one by one, so that the whole model never has to fit in memory.

Source: `quantize_model` in `mlx_lm/utils.py` of mlx-lm 0.32.2, and the `quant_predicate` of its models.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from metal_gen.checkpoint.packed.quantization import MICROSCALED
from metal_gen.checkpoint.packed.stored import Expected, Stored
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.config.quantize import AFFINE, DEFAULT_GROUP_SIZE
from metal_gen.device.backend import DTYPE_BYTES, dtype_named
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.matrix import DenseMatrix
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.matrices.quantized import PIECE_BYTES, Packing, QuantizedMatrix
from metal_gen.models.mtp import MTP_JOINING

# It is small, and guesses from quantized sums of states are worse.
NEVER_QUANTIZED = (MTP_JOINING,)
ROUTER, SHARED_EXPERT_GATE = "mlp.gate", "mlp.shared_expert_gate"
# In these families, matrices that choose or weight experts get more bits.
GATES: Mapping[str, tuple[str, ...]] = {
    "qwen3_moe": (ROUTER,),
    "qwen3_vl_moe": (ROUTER,),
    "qwen3_next": (ROUTER, SHARED_EXPERT_GATE),
    "qwen3_5_moe": (ROUTER, SHARED_EXPERT_GATE),
}
GATE_PACKING = Packing(8, 64)


def packing_named(quantize: str) -> Packing:
    """Return the packing for a value of the setting `quantize`."""
    if quantize in MICROSCALED:
        return MICROSCALED[quantize]
    match = AFFINE.fullmatch(quantize)
    assert match is not None
    return Packing(int(match[1]), int(match[2] or DEFAULT_GROUP_SIZE))


@dataclass(frozen=True)
class QuantizingRules:
    """Which matrices to quantize, and how.

    Args:
        packing: Packing of most matrices.
        model_type: Family, which may give some matrices another packing.
        dtype: Dtype of the numbers to quantize, whatever the dtype of computation, so that the result is the
            same as that of quantizing the checkpoint beforehand.
    """

    packing: Packing
    model_type: str
    dtype: str

    def packing_of(self, name: str, width: int) -> Packing | None:
        """Return the packing of a matrix with rows of this width.

        Return None if it stays unquantized: its rows are not whole groups, or it always does.
        """
        if name in NEVER_QUANTIZED or not self.packing.divides(width):
            return None
        packing = GATE_PACKING if name.endswith(GATES.get(self.model_type, ())) else self.packing
        return packing if packing.divides(width) else None


@dataclass(frozen=True)
class StoredToQuantize:
    """A matrix that is quantized when it has been read.

    Args:
        form: Form in which it is stored; it is read as unquantized numbers.
        packing: Packing to quantize it to.
        dtype: Dtype of the numbers before quantization.
    """

    form: Stored
    packing: Packing
    dtype: str

    @property
    def shape(self) -> Shape:
        """Shape of the matrix, (..., out, in)."""
        return self.form.shape

    def tensors(self) -> dict[str, Expected]:
        """Return the tensors of the stored form."""
        return self.form.tensors()

    def nbytes(self, dtype: str) -> int:
        """Return the bytes in memory, if computed with in this dtype."""
        return self.packing.nbytes(self.shape, DTYPE_BYTES[dtype])

    def reading_bytes(self, dtype: str, found: Mapping[str, TensorInfo]) -> int:
        """Return the bytes of the unquantized numbers, and of the pieces or scales of the result."""
        plain = self.form.nbytes(self.dtype) + self.form.reading_bytes(self.dtype, found)
        if not self.packing.has_biases:
            plain += self.nbytes(dtype) + PIECE_BYTES
        return plain if self.dtype == dtype else max(plain, self.nbytes(self.dtype))

    def read(self, files: TensorFiles) -> QuantizedMatrix:
        """Read and compute the matrix."""
        plain = self.form.read(files.in_dtype(dtype_named(self.dtype)))
        assert isinstance(plain, DenseMatrix)
        return QuantizedMatrix.quantize(plain.numbers, self.packing).computing_in(files.dtype)


def before_quantizing(form: Stored) -> Stored:
    """Return the form before quantization, or the form itself if it is not to be quantized."""
    return form.form if isinstance(form, StoredToQuantize) else form
