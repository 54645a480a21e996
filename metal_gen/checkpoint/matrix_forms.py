"""Finds the form in which a checkpoint stores each of its matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metal_gen.checkpoint.adapters.stored import StoredAdapted
from metal_gen.checkpoint.gguf.blocks.forms import QUANTIZED
from metal_gen.checkpoint.gguf.blocks.stored import StoredBlocks
from metal_gen.checkpoint.packed.quantization import Quantization
from metal_gen.checkpoint.packed.quantizing import QuantizingRules, StoredToQuantize
from metal_gen.checkpoint.packed.stored import Stored, StoredNumbers, StoredPacked
from metal_gen.errors import CheckpointError, ConfigError
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.parameters import Shape

if TYPE_CHECKING:
    from metal_gen.checkpoint.adapters.adapter import Adapter


@dataclass(frozen=True)
class MatrixForms:
    """Chooses the form of a matrix from the tensors that the checkpoint has.

    Args:
        found: The checkpoint's tensors, by the model's names.
        quantization: Quantization according to config.json.
        adapters: Adapters to add to matrices.
        quantizing: Matrices to quantize while they are read; None for none.
    """

    found: Mapping[str, TensorInfo]
    quantization: Quantization
    adapters: "Sequence[Adapter]" = ()
    quantizing: QuantizingRules | None = None

    def shape_of(self, name: str) -> Shape | None:
        """Return the shape of this tensor, or None if there is none."""
        return self.found[name].shape if name in self.found else None

    def parts(self, rows: Mapping[str, int], columns: Sequence[int], axis: int) -> list[Stored]:
        """Return the forms of matrices that are joined along an axis; see `ParameterSource.matrix`."""
        return [self.matrix(name, (*columns[:axis], count, *columns[axis:])) for name, count in rows.items()]

    def stacked(self, name: str, shape: Shape, *, is_turned: bool) -> Stored:
        """Return the form of a tensor with a matrix for each expert; see `ParameterSource.experts`."""
        return self._read_as(name, StoredNumbers(name, shape, is_turned))

    def matrix(self, name: str, shape: Shape) -> Stored:
        """Return the form of a matrix (..., out, in), named without `.weight`, with its adapters.

        Raises:
            CheckpointError: Its rows cannot be quantized as config.json says.
            ConfigError: It is already quantized, but another quantization is requested.
        """
        added = tuple(each.low_ranks[name] for each in self.adapters if name in each.low_ranks)
        base = self.base(name, shape)
        return self._read_as(name, StoredAdapted(base, added) if added else base)

    def _read_as(self, name: str, form: Stored) -> Stored:
        """Return the form, quantized while it is read if requested and not yet quantized."""
        packing = None if self.quantizing is None else self.quantizing.packing_of(name, form.shape[-1])
        if self.quantizing is None or packing is None or packing == form.packing:
            return form
        if form.packing is not None:
            files = {self.found[part].path.name for part in form.tensors() if part in self.found}
            raise ConfigError(
                f"{name} in {min(files, default='no file')} is already quantized, with {form.packing}, "
                f"but quantize requests {packing}",
                "leave quantize out, or use the checkpoint that this one was made from",
            )
        return StoredToQuantize(form, packing, self.quantizing.dtype)

    def base(self, name: str, shape: Shape) -> Stored:
        """Return the form as stored: without adapters, and quantized only if it already is.

        Raises:
            CheckpointError: Its rows cannot be quantized as config.json says.
        """
        weight = self.found.get(f"{name}.weight")
        if weight is not None and weight.dtype in QUANTIZED:
            return StoredBlocks(f"{name}.weight", shape, weight.dtype)
        if self.quantization.method is not None and len(shape) == 2:
            stored = self.quantization.method.form(name, shape, self.found)
            return stored or StoredNumbers(f"{name}.weight", shape)
        packing = self.quantization.packing_of(name)
        scales = self.found.get(f"{name}.scales")
        if scales is None or packing is None:
            if scales is not None:
                raise CheckpointError(
                    f"{scales.place} belongs to quantized weights, and config.json has no quantization for it"
                )
            return StoredNumbers(f"{name}.weight", shape)
        if not packing.divides(shape[-1]):
            raise CheckpointError(
                f"{name} in {scales.path.name} cannot be quantized with {packing}, as config.json says: "
                f"its rows have {shape[-1]} numbers"
            )
        return StoredPacked(name, shape, packing)
