"""Writes a model's weights under the names, and in the layouts, that mlx-lm has for them.

The builders of the models ask for weights in the order of the layers, so this is a source that hands them
on to a file instead: one is in memory at a time.

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

# Families whose language part is a part in mlx-lm too.
NESTED = frozenset({"qwen3_5", "qwen3_5_moe"})
LANGUAGE_PREFIX = "language_model."
NORMS = (
    *(".input_layernorm.weight", ".post_attention_layernorm.weight", "model.norm.weight"),
    *(".q_norm.weight", ".k_norm.weight"),
)
EXPERTS, STACKED_EXPERTS = ".experts.", ".switch_mlp."


class TensorSink(Protocol):
    """Takes tensors one by one."""

    def add(self, name: str, array: mx.array) -> None:
        """Take the next."""
        ...


class WeightConverter:
    """A source that writes what it is asked for, and answers with unevaluated zeros.

    Args:
        config: The model.
        forms: How matrices are stored, and what is quantized.
        files: The checkpoint's tensors; numbers are written in its dtype.
        sink: Gets them.

    Attributes:
        packings: Of the quantized matrices that were written, by mlx-lm's names.
    """

    def __init__(self, config: ModelConfig, forms: MatrixForms, files: TensorFiles, sink: TensorSink) -> None:
        self.forms = forms
        self.packings: dict[str, Packing] = {}
        self._prefix = LANGUAGE_PREFIX if config.model_type in NESTED else ""
        self._files = files
        self._sink = sink
        self._norms_less_one = has_norms_around_zero(config, self)

    def shape_of(self, name: str) -> Shape | None:
        """As the file's header says."""
        return self.forms.shape_of(name)

    def tensor(self, name: str, *shape: int) -> mx.array:
        """Write one tensor; mlx-lm has norms' weights whole, and a convolution's taps before its inputs."""
        # It decides how fast the states of linear attention fade, and is not made shorter.
        keeps_dtype = name.endswith(".A_log")
        array = self._files.stored(name) if keeps_dtype else self._files.numbers(name)
        if self._norms_less_one and name.endswith(NORMS):
            array = array + 1.0
        if name.endswith(".conv1d.weight") and shape[1] == 1:
            array = array.swapaxes(1, 2)
        self._write(name, array)
        return mx.zeros(shape)

    def vector(self, sizes: dict[str, int]) -> mx.array:
        """Write each of the parts."""
        for name in sizes:
            self._write(name, self._files.numbers(name))
        return mx.zeros(sum(sizes.values()))

    def matrix(self, rows: dict[str, int], *columns: int, axis: int = 0) -> DenseMatrix:
        """Write each of the parts."""
        for name, part in zip(rows, self.forms.parts(rows, columns, axis), strict=True):
            self._write_matrix(name, self._read(part))
        return DenseMatrix(mx.zeros((*columns[:axis], sum(rows.values()), *columns[axis:])))

    def one_by_one(self, rows: dict[str, int], inputs: int, *, experts: int) -> DenseMatrix:
        """Write the matrices of single experts as one for each projection."""
        parts = dict(zip(rows, self.forms.parts(rows, (inputs,), 0), strict=True))
        for projection, names in _by_projection(rows).items():
            matrices = [self._read(parts[name]) for name in names]
            arrays = zip(*(matrix.arrays for matrix in matrices), strict=True)
            self._write_matrix(projection, matrices[0].of([mx.stack(list(each)) for each in arrays]))
        return DenseMatrix(mx.zeros((experts, sum(rows.values()) // experts, inputs)))

    def experts(self, name: str, *shape: int, is_turned: bool) -> DenseMatrix:
        """Write the tensor, and gate and up projections apart."""
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
        """Write a matrix, named without `.weight`."""
        if isinstance(matrix, QuantizedMatrix):
            self.packings[self._prefix + name] = matrix.packing
        for part, array in zip(("weight", "scales", "biases"), matrix.arrays, strict=False):
            self._write(f"{name}.{part}", array)

    def _write(self, name: str, array: mx.array) -> None:
        # What is kept until a file is full would otherwise be a view of something larger.
        array = mx.contiguous(array)
        mx.eval(array)
        self._sink.add(self._prefix + name, array)


def _by_projection(rows: Mapping[str, int]) -> dict[str, list[str]]:
    """The matrices of single experts, by what mlx-lm calls them together."""
    together: dict[str, list[str]] = {}
    for name in rows:
        prefix, _, own = name.partition(EXPERTS)
        together.setdefault(f"{prefix}{STACKED_EXPERTS}{own.partition('.')[2]}", []).append(name)
    return together
