"""Asks Linux to back memory with large pages.

Before a program can write to a page of memory, Linux finds one and fills it with zeros. With pages of 4 KiB,
that takes several times as long as to copy gigabytes of weights there, and the same again when the program
ends. Most systems use pages of 2 MiB only where a program asks for them.
"""

import ctypes
import mmap
from functools import cache

# Less memory than this has no large page.
LEAST_BYTES = 2 << 20


def use_large_pages(memory: memoryview) -> None:
    """Ask for large pages in memory that nothing has been written to yet.

    The memory stays as large as it is. Where there are no large pages, this does nothing.

    Args:
        memory: Writable memory, in one piece.
    """
    advice: int | None = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is None or memory.nbytes < LEAST_BYTES:
        return
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    # Advice for whole pages, so that Linux keeps the memory of neighboring arrays together.
    first = begin // mmap.PAGESIZE * mmap.PAGESIZE
    _c_library().madvise(
        ctypes.c_void_p(first), ctypes.c_size_t(begin + memory.nbytes - first), ctypes.c_int(advice)
    )


@cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL(None)
