"""The KV cache: buffers of a fixed size, allocated once and written in place.

Keeps track of how many tokens are written and where the next ones go. Knows nothing of models.

Axes: B batch, H key/value heads, L new tokens, S capacity, D head size.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import mlx.core as mx

from metal_gen.cache.config import KVCacheConfig
from metal_gen.cache.forms import PACKED, CacheForm, Heads, PackedForm, PlainForm
from metal_gen.cache.stored_text import StoredArray, write_while_reading
from metal_gen.device.backend import dtype_named
from metal_gen.device.extra_memory import wait_for_release
from metal_gen.device.zero_arrays import zero_arrays
from metal_gen.errors import DoesNotFitError


class CacheOverflowError(DoesNotFitError):
    """More positions were claimed than the cache has left. Nothing was written.

    Attributes:
        position: Number of tokens already in the cache.
        length: Number of tokens to add.
        max_seq_len: Capacity of the cache.
    """

    def __init__(self, position: int, length: int, max_seq_len: int) -> None:
        super().__init__(
            f"the cache is full: {position} of {max_seq_len} positions are used, {length} more are needed",
            "raise max_seq_len under [cache], or use --max-seq-len",
        )
        self.position = position
        self.length = length
        self.max_seq_len = max_seq_len


class KVCache:
    """Keys and values of all layers, in buffers of shape (B, H, S, ...) that never move or grow.

    A forward pass first claims its positions with `claim`. Then every layer writes to them with
    `update`, or a compiled pass writes to all `buffers` at once.

    Attributes:
        form: How a layer's buffers hold keys and values.
        buffers: Buffers of each layer in turn.
        texts: How often the cache has been cleared for another text.
    """

    def __init__(self, config: KVCacheConfig) -> None:
        """Allocate every buffer now, so that the memory is known from here on."""
        self.config = config
        self.dtype = dtype_named(config.float_dtype)
        self.form = _form(config)
        kinds = self.form.buffers(config.batch_size, config.max_seq_len)
        self.buffers = zero_arrays(kinds * config.num_layers)
        self._start = 0
        self._position = 0
        self._running: mx.array | None = None
        self._running_end = 0
        self._is_settled = True
        self.texts = 0

    # Whether a text from storage can end before its own end.
    can_be_cut = True

    @property
    def position(self) -> int:
        """Number of tokens in the cache, which is also the position of the next one."""
        return self._position

    @property
    def start(self) -> int:
        """First of the positions that were claimed last."""
        return self._start

    @property
    def remaining(self) -> int:
        """Number of free positions."""
        return self.config.max_seq_len - self._position

    @property
    def nbytes(self) -> int:
        """Bytes of all allocated buffers."""
        return sum(buffer.nbytes for buffer in self.buffers)

    @property
    def arrays(self) -> list[mx.array]:
        """All arrays that a pass reads and changes."""
        return list(self.buffers)

    def take_replaced(self, replaced: Sequence[mx.array]) -> None:
        """Take what a compiled pass gives in place of `arrays`; nothing if a kernel has written to them."""
        self.buffers = list(replaced) or self.buffers

    def note_replay(self, replay: Callable[[int], Sequence[mx.array]]) -> None:
        """Remember how to compute the states after the first few tokens of the last pass. Here are none."""

    def evaluate(self) -> None:
        """Wait until everything written is computed."""
        self.settle()
        mx.eval(self.arrays)
        wait_for_release()

    def note_step(self, result: mx.array) -> None:
        """Remember the result of a step whose kernel writes to the claimed positions by itself.

        MLX replaces no array for such a write, so nothing that uses the buffers later depends on it.
        """
        self._running, self._running_end, self._is_settled = result, self._position, False

    def note_read(self) -> None:
        """Note that what the last such step gave has been read: it has written, so nobody waits for it."""
        self._running = None

    def forget_step(self) -> None:
        """Forget the last such step, which nobody has handed over: it will not write."""
        self._running = None

    def let_step_run(self) -> None:
        """Let the last such step write before another one does, even if nobody reads its result."""
        if self._running is not None:
            mx.async_eval(self._running)
            self._running = None

    def settle(self) -> None:
        """Wait for the last such step; to be called before anybody else reads or writes the buffers."""
        self.let_step_run()
        if not self._is_settled:
            mx.synchronize()
            self._is_settled = True

    def claim(self, length: int) -> None:
        """Reserve the next `length` positions for the forward pass that follows.

        Raises:
            CacheOverflowError: Not all of them fit. Position and contents are unchanged.
        """
        if length > self.remaining:
            raise CacheOverflowError(self._position, length, self.config.max_seq_len)
        self._start = self._position
        self._position += length

    def update(self, layer: int, keys: mx.array, values: mx.array) -> tuple[Heads, Heads]:
        """Write one layer's new keys and values to the claimed positions.

        Args:
            layer: Index of the layer.
            keys: New keys, (B', H, L, D) with B' <= B; the first B' sequences are written.
            values: New values, in the same shape.

        Returns:
            All keys and all values of these sequences up to `position`, each
            (B', H, position, D) in the cache's dtype; views, not copies.
        """
        filled = []
        for place, new in enumerate(self.form.encode(keys, values), layer * len(self.form.names)):
            self._write(self.buffers[place], new)
            filled.append(self.buffers[place][: len(new), :, : self._position])
        return self.form.decode(filled)

    def _write(self, buffer: mx.array, new: mx.array) -> None:
        """Write in place, once nothing computes with the buffer any more.

        `mx.slice_update` with a start that is an array would copy the whole buffer on CUDA.
        """
        rows, start, end = len(new), self._start, self._position
        if start == 0 and end == self.config.max_seq_len > 1:
            # MLX would not write a whole buffer in place, but replace it with a second one.
            buffer[:rows, :, : end - 1] = new[:, :, : end - 1]
            buffer[:rows, :, end - 1 :] = new[:, :, end - 1 :]
        else:
            buffer[:rows, :, start:end] = new

    def take_back(self, count: int) -> None:
        """Take back the last positions; later tokens overwrite them.

        Raises:
            ValueError: The cache holds fewer positions.
        """
        if not 0 <= count <= self._position:
            raise ValueError(f"cannot take back {count} of {self._position} positions")
        self._position -= count
        self._start = self._position
        if self._running is not None and self._running_end > self._position:
            # Later tokens write to the same positions.
            mx.synchronize()
            self._running = None

    def mark(self) -> None:
        """Remember this position, so that `take_back` and `stored` can come back to it. Does nothing here."""

    def reachable(self, position: int) -> int:
        """Return the last position up to this one that `take_back` can go to."""
        return min(position, self._position)

    def layout(self, length: int) -> list[StoredArray]:
        """Describe the arrays that `stored` yields and `restore` takes for a text of this length."""
        kinds = list(zip(self.form.names, self.form.buffers(1, length), strict=True))
        return [
            StoredArray(f"{layer}.{name}", shape, dtype)
            for layer in range(self.config.num_layers)
            for name, (shape, dtype) in kinds
        ]

    def stored(self, length: int) -> Iterator[mx.array]:
        """Yield copies of the first `length` positions, one array at a time.

        The text may grow in between; what it has at these positions does not change.
        """
        for place in range(len(self.buffers)):
            yield mx.contiguous(self.buffers[place][:1, :, :length])

    def restore(self, length: int, arrays: Iterable[mx.array]) -> None:
        """Begin a text from storage. One array is written while the next is read.

        Args:
            length: Number of first positions to take; the arrays may hold more.
            arrays: Arrays as `layout` describes them.
        """
        self.clear()
        self.claim(length)
        wait_for_release()
        write_while_reading(self.buffers, (array[:, :, :length] for array in arrays), self._write)

    def clear(self, *, keep: int = 0) -> None:
        """Begin another text: forget all tokens but the first few, and keep the buffers.

        Args:
            keep: Number of tokens that the new text shares with the beginning of the one before.

        Raises:
            ValueError: The cache holds fewer tokens.
        """
        self.take_back(self._position - keep)
        self.texts += 1


def _form(config: KVCacheConfig) -> CacheForm:
    if config.dtype == PACKED:
        return PackedForm(config.num_kv_heads, config.head_dim)
    return PlainForm(config.num_kv_heads, config.head_dim, config.dtype)
