"""Writes a model's weights under mlx-lm's names and in its layouts.

Models read weights layer by layer from a source. The source below writes each weight to a file when it is
read, so that only one is in memory at a time.

Source: `sanitize` of the models of mlx-lm 0.32.2.
"""

from collections.abc import Mapping
from typing import Protocol

import mlx.core as mx

from metal_gen.checkpoint.matrix_forms import MatrixForms
from metal_gen.checkpoint.packed.stored import Stored
from metal_gen.checkpoint.tensor_files import TensorFiles
from metal_gen.models.config.model_config import ModelConfig
from metal_gen.models.linear_attention.weights import has_norms_around_zero
from metal_gen.models.matrices.adapted import AdaptedMatrix
from metal_gen.models.matrices.matrix import ArrayMatrix, DenseMatrix
from metal_gen.models.matrices.parameters import Shape
from metal_gen.models.matrices.quantized import Packing, QuantizedMatrix

# Families whose config and weights nest the language model in mlx-lm too.
NESTED = frozenset({"qwen3_5", "qwen3_5_moe"})
LANGUAGE_PREFIX = "language_model."
NORMS = (
    *(".input_layernorm.weight", ".post_attention_layernorm.weight", "model.norm.weight"),
    *(".q_norm.weight", ".k_norm.weight"),
)
EXPERTS, STACKED_EXPERTS = ".experts.", ".switch_mlp."


class TensorSink(Protocol):
    """Receives tensors one by one."""

    def add(self, name: str, array: mx.array) -> None:
        """Receive the next tensor."""
        ...


class WeightConverter:
    """A weight source that writes each requested weight and returns unevaluated zeros.

    Args:
        config: Config of the model.
        forms: How matrices are stored, and which to quantize.
        files: The checkpoint's tensors, converted to the output dtype.
        sink: Receives the tensors to write.

    Attributes:
        packings: Packing of each quantized matrix written, by mlx-lm's name.
    """

    def __init__(self, config: ModelConfig, forms: MatrixForms, files: TensorFiles, sink: TensorSink) -> None:
        self.forms = forms
        self.packings: dict[str, Packing] = {}
        self._prefix = LANGUAGE_PREFIX if config.model_type in NESTED else ""
        self._files = files
        self._sink = sink
        self._norms_less_one = has_norms_around_zero(config, self)

    def shape_of(self, name: str) -> Shape | None:
        """Return the shape in the file's header; None if there is no such tensor."""
        return self.forms.shape_of(name)

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Write one tensor; mlx-lm stores 1 + w for norms, and (channels, taps, inputs) for convolutions."""
        # A_log sets how fast linear-attention states decay; it keeps its precision.
        keeps_dtype = name.endswith(".A_log")
        array = self._files.stored(name) if keeps_dtype else self._files.numbers(name)
        if self._norms_less_one and name.endswith(NORMS):
            array = array + 1.0
        if name.endswith(".conv1d.weight") and shape[1] == 1:
            array = array.swapaxes(1, 2)
        self._write(name, array)
        return mx.zeros(shape)

    def vector(self, sizes: dict[str, int]) -> mx.array:
        """Write each part."""
        for name in sizes:
            self._write(name, self._files.numbers(name))
        return mx.zeros(sum(sizes.values()))

    def matrix(self, rows: dict[str, int], *columns: int, axis: int = 0) -> DenseMatrix:
        """Write each part."""
        for name, part in zip(rows, self.forms.parts(rows, columns, axis), strict=True):
            self._write_matrix(name, self._read(part))
        return DenseMatrix(mx.zeros((*columns[:axis], sum(rows.values()), *columns[axis:])))

    def one_by_one(self, rows: dict[str, int], inputs: int, *, experts: int) -> DenseMatrix:
        """Write the matrices of the single experts, stacked to one tensor per projection."""
        parts = dict(zip(rows, self.forms.parts(rows, (inputs,), 0), strict=True))
        for projection, names in _by_projection(rows).items():
            matrices = [self._read(parts[name]) for name in names]
            arrays = zip(*(matrix.arrays for matrix in matrices), strict=True)
            self._write_matrix(projection, matrices[0].of([mx.stack(list(each)) for each in arrays]))
        return DenseMatrix(mx.zeros((experts, sum(rows.values()) // experts, inputs)))

    def experts(self, name: str, *shape: int, is_turned: bool) -> DenseMatrix:
        """Write stacked experts; gate and up projections are written separately."""
        matrix = self._read(self.forms.stacked(name, shape, is_turned=is_turned))
        target = name.replace(EXPERTS, STACKED_EXPERTS)
        if not name.endswith(".gate_up_proj"):
            self._write_matrix(target, matrix)
        else:
            half = shape[1] // 2
            for projection, part in (("gate_proj", slice(half)), ("up_proj", slice(half, None))):
                self._write_matrix(
                    target.replace("gate_up_proj", projection),
                    matrix.of([array[:, part] for array in matrix.arrays]),
                )
        return DenseMatrix(mx.zeros(shape))

    def _read(self, form: Stored) -> ArrayMatrix:
        matrix = form.read(self._files)
        assert not isinstance(matrix, AdaptedMatrix)
        return matrix

    def _write_matrix(self, name: str, matrix: ArrayMatrix) -> None:
        """Write a matrix; `name` does not include `.weight`."""
        if isinstance(matrix, QuantizedMatrix):
            self.packings[self._prefix + name] = matrix.packing
        for part, array in zip(("weight", "scales", "biases"), matrix.arrays, strict=False):
            self._write(f"{name}.{part}", array)

    def _write(self, name: str, array: mx.array) -> None:
        # Copy: the array is kept until the file is full, and a view would keep a larger array alive.
        array = mx.contiguous(array)
        mx.eval(array)
        self._sink.add(self._prefix + name, array)


def _by_projection(rows: Mapping[str, int]) -> dict[str, list[str]]:
    """Group the matrices of single experts by mlx-lm's name of the stacked tensor."""
    together: dict[str, list[str]] = {}
    for name in rows:
        prefix, _, own = name.partition(EXPERTS)
        together.setdefault(f"{prefix}{STACKED_EXPERTS}{own.partition('.')[2]}", []).append(name)
    return together
