"""In which form a checkpoint keeps each of its matrices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metal_gen.checkpoint.adapters.stored import StoredAdapted
from metal_gen.checkpoint.gguf.block_forms import QUANTIZED
from metal_gen.checkpoint.gguf.stored import StoredBlocks
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
    """Chooses the form of a matrix by what is found of it.

    Args:
        found: The checkpoint's tensors, by the model's names for them.
        quantization: What its config.json says of that.
        adapters: Add to matrices.
        quantizing: What is quantized while it is read; None for nothing.
    """

    found: Mapping[str, TensorInfo]
    quantization: Quantization
    adapters: "Sequence[Adapter]" = ()
    quantizing: QuantizingRules | None = None

    def shape_of(self, name: str) -> Shape | None:
        """The shape of the tensor of this name, or None where there is none."""
        return self.found[name].shape if name in self.found else None

    def parts(self, rows: Mapping[str, int], columns: Sequence[int], axis: int) -> list[Stored]:
        """Matrices that are joined along an axis; see `ParameterSource.matrix`."""
        return [self.matrix(name, (*columns[:axis], count, *columns[axis:])) for name, count in rows.items()]

    def stacked(self, name: str, shape: Shape, *, is_turned: bool) -> Stored:
        """The tensor that holds a matrix for each expert; see `ParameterSource.experts`."""
        return self._read_as(name, StoredNumbers(name, shape, is_turned))

    def matrix(self, name: str, shape: Shape) -> Stored:
        """The matrix (..., out, in) of this name, without `.weight`, with what adapters add to it.

        Raises:
            CheckpointError: Its rows cannot be quantized in the way that config.json says.
            ConfigError: It is quantized, and is to be in another way.
        """
        added = tuple(each.low_ranks[name] for each in self.adapters if name in each.low_ranks)
        base = self.base(name, shape)
        return self._read_as(name, StoredAdapted(base, added) if added else base)

    def _read_as(self, name: str, form: Stored) -> Stored:
        """A form, quantized in memory if it is to be and is not so yet."""
        packing = None if self.quantizing is None else self.quantizing.packing_of(name, form.shape[-1])
        if self.quantizing is None or packing is None or packing == form.packing:
            return form
        if form.packing is not None:
            files = {self.found[part].path.name for part in form.tensors() if part in self.found}
            raise ConfigError(
                f"{name} in {min(files, default='no file')} is quantized already, with {form.packing}, "
                f"and quantize asks for {packing}",
                "leave quantize out, or use the checkpoint that this one was made from",
            )
        return StoredToQuantize(form, packing, self.quantizing.dtype)

    def base(self, name: str, shape: Shape) -> Stored:
        """The same as it is stored, without adapters, and quantized only if it is already.

        Raises:
            CheckpointError: As for `matrix`.
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
                f"{name} in {scales.path.name} cannot have {packing}, as config.json says: "
                f"its rows have {shape[-1]} numbers"
            )
        return StoredPacked(name, shape, packing)
