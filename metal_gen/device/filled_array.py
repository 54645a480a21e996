"""Arrays that several threads fill with bytes of files.

`mx.empty` writes zeros first, and everything else copies, so a number would be written twice. But `mx.load`
hands the memory of a new array to a Python file, which can fill it as it likes, in large pages.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Self
from weakref import WeakSet

import mlx.core as mx

from metal_gen.device.buffer_cache import READING
from metal_gen.device.large_pages import use_large_pages
from metal_gen.device.limits import control_group_cpus
from metal_gen.files.safetensors_header import BITS

# So much is read at once, by one thread.
PIECE_BYTES = 1 << 20
# More threads than this read no faster.
MOST_THREADS = 16
# MLX never needs so long to let go of a file.
MOST_RELEASE_S = 1.0
# Dtypes of safetensors, and those that MLX reads them as.
READ_AS = {
    "F32": mx.float32, "F16": mx.float16, "BF16": mx.bfloat16, "C64": mx.complex64, "BOOL": mx.bool_,
    "I64": mx.int64, "I32": mx.int32, "I16": mx.int16, "I8": mx.int8,
    "U64": mx.uint64, "U32": mx.uint32, "U16": mx.uint16, "U8": mx.uint8, "F8_E4M3": mx.uint8,
}  # fmt: skip

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
        self._handed_files: WeakSet[_HandedFile] = WeakSet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()
        # MLX's thread lets go of a file a moment after the array is there. If the interpreter ended before,
        # C++ would abort the process.
        end_s = time.monotonic() + MOST_RELEASE_S
        while self._handed_files and time.monotonic() < end_s:
            time.sleep(0.0001)

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
            arrays = mx.load(self._handed(file), format="safetensors")  # type: ignore[arg-type]
        assert isinstance(arrays, dict)
        if file.failure is not None:
            raise file.failure
        if not file.is_filled:
            raise RuntimeError("MLX did not ask for the numbers of an array")
        return arrays[_NAME]

    def _handed(self, file: "_FileOfOneArray") -> "_HandedFile":
        handed = _HandedFile(file)
        self._handed_files.add(handed)
        return handed

    def _run(self, tasks: Sequence[Task]) -> None:
        """Run tasks; if one fails, wait for the others too, because they use the same memory."""
        if len(tasks) == 1:
            tasks[0]()
            return
        futures = [self._pool.submit(task) for task in tasks]
        wait(futures)
        for future in futures:
            future.result()


def parts(nbytes: int, most: int) -> Iterator[tuple[int, int]]:
    """Cut a range of bytes into parts of equal size, of at most `most` bytes."""
    count = -(-nbytes // most)
    for number in range(count):
        yield nbytes * number // count, nbytes * (number + 1) // count


class _HandedFile:
    """The methods of a file. Only MLX holds it: not even the traceback of an error does."""

    closed = False

    def __init__(self, file: "_FileOfOneArray") -> None:
        self.seek, self.tell, self.readable = file.seek, file.tell, file.readable
        self.read, self.readinto = file.read, file.readinto


class _FileOfOneArray:
    """What `mx.load` needs of a safetensors file. MLX calls it from a thread where nothing may be raised."""

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
                use_large_pages(memory)
                self._fill(memory.cast("B"))
                self.is_filled = True
            except Exception as error:
                self.failure = error
        self._place += count
        return count
