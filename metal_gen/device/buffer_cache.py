"""The memory of freed arrays, which MLX keeps for new ones: one cache for all threads of the process.

On a CPU, MLX waits for the computations of all threads before it frees this memory, and holds Python's lock
meanwhile. Arrays that Python code reads from files need that lock, so each would wait for the other for ever.
"""

import threading

import mlx.core as mx

# Held while MLX calls Python code to read a file, and while MLX may wait for such a read.
READING = threading.Lock()


def limit_buffer_cache(nbytes: int) -> int:
    """Limit the memory that MLX keeps, in bytes; return the limit before."""
    with READING:
        return mx.set_cache_limit(nbytes)


def clear_buffer_cache() -> None:
    """Free the memory that MLX keeps."""
    with READING:
        mx.clear_cache()
