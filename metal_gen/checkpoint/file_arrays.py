"""Reads tensors of safetensors files into arrays, in the way that is fastest for a device.

MLX reads a file with one thread of its own into memory, and joining arrays copies them. On a CPU that copy
and the single thread take much of the time until the first token, so there several threads fill the memory
of the final array.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Protocol, Self

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu
from metal_gen.device.filled_array import PIECE_BYTES, READ_AS, ArrayFiller, Task, parts
from metal_gen.errors import CheckpointError
from metal_gen.excerpt import excerpt
from metal_gen.files.bounded_file import open_regular
from metal_gen.files.open_files import allow_open_files
from metal_gen.files.safetensors_header import TensorInfo, read_opened_header
from metal_gen.models.matrices.matrix import computed

# Each thread reads about so many parts of an array. With many small parts, threads that read would wait for
# the interpreter while another thread reads the tokenizer.
PARTS_PER_THREAD = 2
# An array of so many bytes is read and then copied, which is faster than to hand its memory to threads.
SMALL_BYTES = 64 << 10


class FileArrays(Protocol):
    """Opened files whose tensors are read into arrays."""

    def __enter__(self) -> Self:
        """Return itself."""
        ...

    def __exit__(self, *exception: object) -> None:
        """Close the files."""
        ...

    def array(self, tensors: Sequence[TensorInfo]) -> mx.array:
        """Read tensors of one dtype, joined along their first axis. Several only if `fills_arrays`.

        Raises:
            CheckpointError: A file cannot be read, has a dtype that MLX cannot read, or has changed since its
                header was read.
        """
        ...


def fills_arrays() -> bool:
    """Return whether several tensors can be read into one array."""
    return runs_on_cpu()


def open_arrays(paths: Sequence[Path]) -> FileArrays:
    """Open safetensors files.

    Raises:
        CheckpointError: A file cannot be opened or is damaged.
        ConfigError: The system does not allow so many open files.
    """
    allow_open_files(len(paths))
    return FilledArrays(paths) if fills_arrays() else LoadedArrays(paths)


class LoadedArrays:
    """Arrays that MLX reads when they are evaluated.

    Args:
        paths: Paths of the files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._arrays: dict[tuple[Path, str], mx.array] = {}
        for path in paths:
            try:
                loaded = mx.load(str(path))
            # The second if the file has changed since its header was read.
            except (RuntimeError, UnicodeDecodeError) as error:
                raise CheckpointError(f"MLX cannot read {path}: {error}") from error
            assert isinstance(loaded, dict)
            self._arrays.update({(path, name): array for name, array in loaded.items()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._arrays.clear()

    def array(self, tensors: Sequence[TensorInfo]) -> mx.array:
        """Read one tensor; it can be read once."""
        [tensor] = tensors
        array = self._arrays.pop((tensor.path, tensor.name), None)
        if array is None or array.shape != tensor.shape:
            raise changed(tensor)
        try:
            return computed(array)
        except RuntimeError as error:
            if "[read]" not in str(error):
                raise
            raise changed(tensor) from error


class FilledArrays:
    """Arrays that several threads fill.

    A file that is replaced while it is open is read to its end as it was.

    Args:
        paths: Paths of the files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._descriptors: dict[Path, int] = {}
        self._tensors: dict[Path, dict[str, TensorInfo]] = {}
        with ExitStack() as closing:
            self._filler = closing.enter_context(ArrayFiller())
            for path in paths:
                try:
                    file, file_bytes = open_regular(path)
                    closing.enter_context(file)
                    self._tensors[path], _ = read_opened_header(file, file_bytes, path)
                except OSError as error:
                    raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
                self._descriptors[path] = file.fileno()
            self._closing = closing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()

    def array(self, tensors: Sequence[TensorInfo]) -> mx.array:
        """Read tensors into one array."""
        for tensor in tensors:
            if self._tensors[tensor.path].get(tensor.name) != tensor:
                raise changed(tensor)
        first = tensors[0]
        shape = first.shape
        if len(tensors) > 1:
            shape = (sum(tensor.shape[0] for tensor in tensors), *first.shape[1:])
        if sum(tensor.nbytes for tensor in tensors) <= SMALL_BYTES and first.dtype in READ_AS:
            return self._small_array(tensors, shape)
        try:
            return self._filler.array(first.dtype, shape, partial(self._tasks, tensors))
        except RuntimeError as error:
            if "[safetensor]" not in str(error):
                raise
            raise CheckpointError(f"MLX cannot read {first.path}: {error}") from error

    def _small_array(self, tensors: Sequence[TensorInfo], shape: Sequence[int]) -> mx.array:
        memory = memoryview(bytearray(sum(tensor.nbytes for tensor in tensors)))
        for task in self._tasks(tensors, memory):
            task()
        numbers = mx.array(memory)  # type: ignore[arg-type]
        return computed(numbers.view(READ_AS[tensors[0].dtype]).reshape(shape))

    def _tasks(self, tensors: Sequence[TensorInfo], memory: memoryview) -> list[Task]:
        """Return tasks that each read a part of a tensor."""
        most = max(PIECE_BYTES, len(memory) // (PARTS_PER_THREAD * self._filler.threads))
        tasks: list[Task] = []
        done = 0
        for tensor in tensors:
            descriptor = self._descriptors[tensor.path]
            for begin, end in parts(tensor.nbytes, most):
                part = memory[done + begin : done + end]
                tasks.append(partial(_fill, part, descriptor, tensor.offset + begin, tensor))
            done += tensor.nbytes
        return tasks


def _fill(memory: memoryview, descriptor: int, offset: int, tensor: TensorInfo) -> None:
    done = 0
    while done < len(memory):
        try:
            count = os.preadv(descriptor, [memory[done:]], offset + done)
        except OSError as error:
            raise CheckpointError(f"cannot read {tensor.path}: {error.strerror}") from error
        if not count:
            raise changed(tensor)
        done += count


def changed(tensor: TensorInfo) -> CheckpointError:
    """Return the error for a file that changed after its header was read."""
    return CheckpointError(
        f"{tensor.path} was changed while it was read: {excerpt(tensor.name)} is gone",
        "run the same command again once nothing writes to the checkpoint",
    )
