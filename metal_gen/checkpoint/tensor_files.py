"""Reads tensors from files, one by one and each only once."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Self

import mlx.core as mx

from metal_gen.checkpoint.file_arrays import open_arrays
from metal_gen.checkpoint.gguf.blocks.read import read_blocks
from metal_gen.checkpoint.gguf.header import GgufTensor
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.matrix import computed


class TensorFiles:
    """The tensors of a checkpoint. A tensor is not kept here after it has been read.

    As a context manager, it closes the files.

    Args:
        tensors: Tensors by the model's names, which have been checked.
        dtype: Dtype of the returned numbers.

    Attributes:
        tensors: As given.
        dtype: As given.

    Raises:
        CheckpointError: A file cannot be read.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo], dtype: mx.Dtype) -> None:
        self.dtype = dtype
        self.tensors = tensors
        self._joined: Mapping[str, Sequence[str]] = {}
        paths = {info.path for info in tensors.values() if not isinstance(info, GgufTensor)}
        self._arrays = open_arrays(sorted(paths))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._arrays.__exit__(*exception)

    def in_dtype(self, dtype: mx.Dtype) -> "TensorFiles":
        """Return the same tensors, with numbers returned in another dtype."""
        others = copy(self)
        others.dtype = dtype
        return others

    def joining(self, joined: Mapping[str, Sequence[str]]) -> "TensorFiles":
        """Return the same tensors, where some names stand for several, joined along their first axis.

        Args:
            joined: Names of the tensors, of one dtype and unquantized or packed by MLX.
        """
        others = copy(self)
        others._joined = joined
        return others

    def stored(self, name: str) -> mx.array:
        """Read a tensor without conversion."""
        return self._arrays.array([self.tensors[each] for each in self._joined.get(name, [name])])

    def numbers(self, name: str) -> mx.array:
        """Read a tensor of floating-point numbers and convert it to `dtype`."""
        info = self.tensors[name]
        if isinstance(info, GgufTensor):
            return read_blocks(info, self.dtype)[0]
        return computed(self.stored(name).astype(self.dtype))

    def blocks(self, name: str) -> list[mx.array]:
        """Read a tensor of a GGUF file as `read_blocks` does."""
        info = self.tensors[name]
        assert isinstance(info, GgufTensor)
        return read_blocks(info, self.dtype)
