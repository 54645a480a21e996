"""The bits of allowed tokens: found in other threads, and kept as arrays as long as they come again.

Axes: W words of 32 bits, one bit per token.
"""

from collections import deque
from collections.abc import Callable
from functools import cached_property
from typing import Any

import mlx.core as mx

from metal_gen.constraints.thread_pool import Future, ThreadPool
from metal_gen.device.backend import runs_on_cpu
from metal_gen.sampling.allowed import word_count

# Texts of several slots ask at the same time.
THREADS = 4
# Tokens within a string mostly have the same bits, and so have the objects of a list in turn.
MOST_KEPT = 32


class Masks:
    """The bits of allowed tokens for the matchers of one model.

    Args:
        vocab_size: Rows of the model's logits.

    Attributes:
        words: W.
        in_threads: Whether to find bits in other threads. A host often needs longer to hand a pass over to a
            GPU than that to compute it. A CPU that computes the pass itself has no thread to spare.
    """

    def __init__(self, vocab_size: int) -> None:
        self.in_threads = not runs_on_cpu()
        self.words = word_count(vocab_size)
        self._recent: deque[tuple[bytes, mx.array]] = deque(maxlen=MOST_KEPT)

    @cached_property
    def _threads(self) -> ThreadPool:
        return ThreadPool(THREADS, "masks")

    def submit(self, find: Callable[[], bytes]) -> Future[bytes] | None:
        """Begin to find bits in another thread; return None if that is left to the caller."""
        return self._threads.submit(find) if self.in_threads else None

    def array(self, bits: bytes) -> mx.array:
        """Return bits as an array, (1, W) uint32.

        An array that is used again is not copied to the device again. With CUDA, that takes longer than to
        find the bits.
        """
        for place, (known, array) in enumerate(self._recent):
            if known == bits:
                if place:
                    del self._recent[place]
                    self._recent.appendleft((known, array))
                return array
        words: Any = memoryview(bits).cast("I", (1, self.words))
        array = mx.array(words)
        self._recent.appendleft((bits, array))
        return array
