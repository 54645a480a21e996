"""Reads tensors from files, one by one and each once."""

from collections.abc import Mapping

import mlx.core as mx

from metal_gen.checkpoint.safetensors_header import TensorInfo
from metal_gen.errors import CheckpointError


class TensorFiles:
    """The tensors of a checkpoint, of which none is kept here once it was read.

    Args:
        tensors: By the model's names for them.
        dtype: That numbers are returned in.

    Raises:
        CheckpointError: MLX cannot read a file.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo], dtype: mx.Dtype) -> None:
        self.dtype = dtype
        self._tensors = tensors
        self._arrays: dict[str, mx.array] = {}
        for path in sorted({info.path for info in tensors.values()}):
            try:
                loaded = mx.load(str(path))
            except RuntimeError as error:
                raise CheckpointError(f"MLX cannot read {path}: {error}") from error
            assert isinstance(loaded, dict)
            self._arrays.update(loaded)

    def stored(self, name: str) -> mx.array:
        """Read a tensor as it is."""
        array = self._arrays.pop(self._tensors[name].name)
        mx.eval(array)
        return array

    def numbers(self, name: str) -> mx.array:
        """Read a tensor of floating-point numbers, converted."""
        array = self._arrays.pop(self._tensors[name].name).astype(self.dtype)
        mx.eval(array)
        return array
