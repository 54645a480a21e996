"""Reads tensors from files, one by one and each only once."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path

import mlx.core as mx

from metal_gen.checkpoint.gguf.blocks.read import read_blocks
from metal_gen.checkpoint.gguf.header import GgufTensor
from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.files.open_files import allow_open_files
from metal_gen.files.safetensors_header import TensorInfo
from metal_gen.models.matrices.matrix import computed


class TensorFiles:
    """The tensors of a checkpoint. A tensor is not kept here after it has been read.

    Args:
        tensors: Tensors by the model's names.
        dtype: Dtype of the returned numbers.

    Raises:
        CheckpointError: MLX cannot read a file.
    """

    def __init__(self, tensors: Mapping[str, TensorInfo], dtype: mx.Dtype) -> None:
        self.dtype = dtype
        self._tensors = tensors
        self._arrays: dict[tuple[Path, str], mx.array] = {}
        paths = sorted({info.path for info in tensors.values() if not isinstance(info, GgufTensor)})
        allow_open_files(len(paths))
        for path in paths:
            try:
                loaded = mx.load(str(path))
            # The second if the file has changed since its header was read.
            except (RuntimeError, UnicodeDecodeError) as error:
                raise CheckpointError(f"MLX cannot read {path}: {error}") from error
            assert isinstance(loaded, dict)
            self._arrays.update({(path, name): array for name, array in loaded.items()})

    def in_dtype(self, dtype: mx.Dtype) -> "TensorFiles":
        """Return the same tensors, with numbers returned in another dtype."""
        others = copy(self)
        others.dtype = dtype
        return others

    def stored(self, name: str) -> mx.array:
        """Read a tensor without conversion."""
        return self._read(name, self._take(name))

    def numbers(self, name: str) -> mx.array:
        """Read a tensor of floating-point numbers and convert it to `dtype`."""
        info = self._tensors[name]
        if isinstance(info, GgufTensor):
            return read_blocks(info, self.dtype)[0]
        return self._read(name, self._take(name).astype(self.dtype))

    def blocks(self, name: str) -> list[mx.array]:
        """Read a tensor of a GGUF file as `read_blocks` does."""
        info = self._tensors[name]
        assert isinstance(info, GgufTensor)
        return read_blocks(info, self.dtype)

    def _take(self, name: str) -> mx.array:
        info = self._tensors[name]
        array = self._arrays.pop((info.path, info.name), None)
        if array is None or array.shape != info.shape:
            raise _changed(info)
        return array

    def _read(self, name: str, array: mx.array) -> mx.array:
        """Make MLX read the file now, which it defers until the array is used."""
        try:
            computed(array)
        except RuntimeError as error:
            if "[read]" not in str(error):
                raise
            raise _changed(self._tensors[name]) from error
        return array


def _changed(info: TensorInfo) -> CheckpointError:
    return CheckpointError(
        f"{info.path} was changed while it was read: {excerpt(info.name)} is gone",
        "run the same command again once nothing writes to the checkpoint",
    )
