"""Arrays that several threads fill with bytes of files.

`mx.empty` writes zeros first, and everything else copies, so a number would be written twice. But `mx.load`
hands the memory of a new array to a Python file, which can fill it as it likes.
"""

import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Self

import mlx.core as mx

from metal_gen.device.buffer_cache import READING
from metal_gen.device.limits import control_group_cpus
from metal_gen.files.safetensors_header import BITS

# So much is read at once, by one thread.
PIECE_BYTES = 1 << 20
# More threads than this read no faster.
MOST_THREADS = 16

Task = Callable[[], None]
_NAME = "array"


class ArrayFiller:
    """Threads that fill arrays. They read files and never call MLX; as a context manager, it ends them.

    Attributes:
        threads: Number of threads.
    """

    def __init__(self) -> None:
        self.threads = min(MOST_THREADS, os.cpu_count() or 1, control_group_cpus() or MOST_THREADS)
        self._pool = ThreadPoolExecutor(self.threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()

    def array(
        self, dtype: str, shape: Sequence[int], tasks: Callable[[memoryview], Sequence[Task]]
    ) -> mx.array:
        """Return a new array, once all tasks have filled its memory.

        Args:
            dtype: Dtype as safetensors spells it: `BF16`, `F32`.
            shape: Sizes of the axes.
            tasks: Given the memory, returns tasks that each fill a part of it.

        Raises:
            RuntimeError: MLX does not know the dtype, or does not ask for the whole array at once.
            Exception: What a task raised.
        """
        file = _FileOfOneArray(dtype, shape, lambda memory: self._run(tasks(memory)))
        with READING:
            arrays = mx.load(file, format="safetensors")  # type: ignore[arg-type]
        assert isinstance(arrays, dict)
        if file.failure is not None:
            raise file.failure
        if not file.is_filled:
            raise RuntimeError("MLX did not ask for the numbers of an array")
        return arrays[_NAME]

    def _run(self, tasks: Sequence[Task]) -> None:
        """Run tasks; if one fails, wait for the others too, because they use the same memory."""
        if len(tasks) == 1:
            tasks[0]()
            return
        futures = [self._pool.submit(task) for task in tasks]
        wait(futures)
        for future in futures:
            future.result()


class _FileOfOneArray:
    """What `mx.load` needs of a safetensors file. MLX calls it from a thread where nothing may be raised."""

    closed = False

    def __init__(self, dtype: str, shape: Sequence[int], fill: Callable[[memoryview], None]) -> None:
        self.failure: Exception | None = None
        self._fill = fill
        self._nbytes = nbytes = math.prod(shape) * BITS[dtype] // 8
        self.is_filled = nbytes == 0
        places = {_NAME: {"dtype": dtype, "shape": list(shape), "data_offsets": [0, nbytes]}}
        header = json.dumps(places).encode()
        self._head = len(header).to_bytes(8, "little") + header
        self._size = len(self._head) + nbytes
        self._place = 0

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        self._place = place + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        raise NotImplementedError  # MLX asks whether there is such a method, and calls `readinto`.

    def readinto(self, memory: memoryview) -> int:
        count = memory.nbytes
        if self._place < len(self._head):
            memory[:] = self._head[self._place : self._place + count]
        elif (self._place, count) != (len(self._head), self._nbytes):
            # The tasks fill the whole array, so a part of it would get wrong numbers.
            self.failure = RuntimeError(f"MLX asked for {count} bytes of an array of {self._nbytes}")
        else:
            try:
                self._fill(memory.cast("B"))
                self.is_filled = True
            except Exception as error:
                self.failure = error
        self._place += count
        return count
