"""Runs the kernel that computes everything between the projections of a layer of linear attention.

Axes: as in `mix_kernel`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import mlx.core as mx

from metal_gen.device.device_memory import in_device_memory
from metal_gen.models.config.linear_attention import LinearAttentionConfig
from metal_gen.models.kernels.dialect import LANES, Size
from metal_gen.models.linear_attention.mix_kernel import CODE, TO_FINISH, TO_MIX, TO_PREPARE
from metal_gen.models.matrices.matrix import computed

Result = tuple[Sequence[int], mx.Dtype]
Threads = tuple[int, int, int]
# Shape of what a job does not compute.
ONE = (1,)

HEAD_SIZES = (32, 64, 128)
ROWS_AT_ONCE = 4
# Up to so many tokens, a group takes a whole head: as fast as several kernels, and CUDA compiles only one.
MOST_WHOLE = 128
# Rows of lanes of a group where each has its own token. Larger groups would leave registers unused.
MOST_AT_ONCE = 4
MOST_TOKENS = 2**31 - 1


@dataclass(frozen=True)
class Group:
    """How a group of threads shares the work.

    Attributes:
        warps: Rows of 32 lanes.
        of_lane: Rows of the memory in a lane.
        tokens: Tokens that are prepared at once.
    """

    warps: int
    of_lane: int
    tokens: int = 16

    @property
    def rows(self) -> int:
        """Rows of the memory."""
        return ROWS_AT_ONCE * self.of_lane * self.warps


def whole_head(value_size: int) -> Group:
    """Return a group for all rows of a head."""
    of_lane = max(1, value_size // 64)
    return Group(value_size // (ROWS_AT_ONCE * of_lane), of_lane)


PART_OF_HEAD = Group(warps=4, of_lane=1)


def is_supported(sizes: LinearAttentionConfig) -> bool:
    """Return whether the kernel works for these sizes."""
    key, value = sizes.linear_key_head_dim, sizes.linear_value_head_dim
    # A lane reads some successive numbers at once.
    evenly = 2 * sizes.linear_num_value_heads % (key // LANES or 1) == 0
    return key in HEAD_SIZES and value in HEAD_SIZES and evenly


def joined_weights(
    taps: mx.array, speed: mx.array, bias: mx.array, norm: mx.array, epsilon: float
) -> mx.array:
    """Return all that the kernel multiplies with or adds, in float32.

    Args:
        taps: Taps of the convolution, (T, C).
        speed: How fast each head fades, negative, (H,).
        bias: Bias added to a token's decay, (H,).
        norm: Weight of the gated norm, (V,).
        epsilon: Constant of that norm.
    """
    parts = [taps, speed, bias, norm, mx.array([epsilon])]
    return computed(mx.concatenate([part.reshape(-1).astype(mx.float32) for part in parts]))


@dataclass(frozen=True)
class Mix:
    """Computes everything between the projections of a layer.

    Args:
        sizes: Sizes of the heads.
        by_key_head: Whether the projection groups its outputs by key head.
        weights: Result of `joined_weights`.
        group: How to share the work; default: what is fast.
    """

    sizes: LinearAttentionConfig
    by_key_head: bool
    weights: mx.array
    group: Group | None = None

    def __call__(
        self, rows: mx.array, before: mx.array, memory: mx.array, used: mx.array | None = None
    ) -> tuple[mx.array, mx.array, mx.array]:
        """Compute new tokens.

        Args:
            rows: Their projection, (B, L, X).
            before: Inputs of the convolution before the first token, (B, T - 1, C).
            memory: Memory before the first token, (B, H, V, K), float32.
            used: How many of the L tokens of each sequence change its states, (B,) int32; None for all.

        Returns:
            Gated heads, (B, L, H * V), in the dtype of the rows; the last T - 1 inputs, and the memory, after
            the tokens that are used.
        """
        length, value = rows.shape[1], self.sizes.linear_value_head_dim
        group = self.group or (whole_head(value) if length <= MOST_WHOLE else PART_OF_HEAD)
        known = _all_used() if used is None else in_device_memory(used)
        run = _Run(self, group, rows, before, memory, known, used is not None)
        return run.of_heads() if group.rows == value else run.of_parts()


@dataclass(frozen=True)
class _Run:
    """The jobs of the kernel for some tokens.

    Args:
        mix: The layer.
        group: How to share the work.
        rows: See `Mix.__call__`, also for the next two.
        before: See there.
        memory: See there.
        used: How many tokens of each sequence are used, at least (B,), or the largest number, at least (1,).
        by_sequence: Whether each sequence has its own number.
    """

    mix: Mix
    group: Group
    rows: mx.array
    before: mx.array
    memory: mx.array
    used: mx.array
    by_sequence: bool

    def of_heads(self) -> tuple[mx.array, mx.array, mx.array]:
        """Run one job, in which a group takes a whole head."""
        results = [self._attended, (ONE, mx.float32), *self._states]
        attended, _, conv, after = self._job(TO_MIX, self.mix.weights, results, *self._on_heads(1))
        return attended, conv, after

    def of_parts(self) -> tuple[mx.array, mx.array, mx.array]:
        """Prepare all tokens, apply the rule to parts of heads, and finish heads."""
        sizes = self.mix.sizes
        heads, value = sizes.linear_num_value_heads, sizes.linear_value_head_dim
        few: Result = (ONE, self.rows.dtype)
        state: Result = (ONE, self.before.dtype)
        number: Result = (ONE, mx.float32)
        tokens = self.rows.shape[:2]
        prepared: Result = ((*tokens, sizes.conv_size + 4 * heads), mx.float32)
        results = [few, prepared, state, number]
        by_token = self._on_tokens(sizes.linear_num_key_heads)
        ready = self._job(TO_PREPARE, self.mix.weights, results, *by_token)[1]
        results = [few, ((*tokens, heads, value), mx.float32), *self._states]
        _, read, conv, after = self._job(TO_MIX, ready, results, *self._on_heads(value // self.group.rows))
        results = [self._attended, number, state, number]
        return self._job(TO_FINISH, read, results, *self._on_tokens(heads))[0], conv, after

    @property
    def _attended(self) -> Result:
        return (*self.rows.shape[:2], self.mix.sizes.value_size), self.rows.dtype

    @property
    def _states(self) -> list[Result]:
        return [(self.before.shape, self.before.dtype), (self.memory.shape, mx.float32)]

    def _on_heads(self, parts: int) -> tuple[Threads, Threads]:
        """Return grid and group for heads in so many parts."""
        warps, heads = self.group.warps, self.mix.sizes.linear_num_value_heads
        return (LANES, warps * heads * parts, len(self.rows)), (LANES, warps, 1)

    def _on_tokens(self, count: int) -> tuple[Threads, Threads]:
        """Return grid and group for so many heads of each token."""
        at_once = next(each for each in range(MOST_AT_ONCE, 0, -1) if count % each == 0)
        batch, length, _ = self.rows.shape
        return (LANES * batch * length, count, 1), (LANES, at_once, 1)

    def _job(
        self, job: int, ready: mx.array, results: Sequence[Result], grid: Threads, group: Threads
    ) -> list[mx.array]:
        sizes = self.mix.sizes
        counts = _counts(sizes, self.mix.by_key_head, self.rows.shape[1], job, self.by_sequence)
        return CODE(
            [self.rows, self.before, self.memory, self.mix.weights, self.used, counts, ready],
            results,
            sizes=_template(sizes, self.rows.dtype, self.before.dtype, self.group),
            grid=grid,
            group=group,
        )


def _template(
    sizes: LinearAttentionConfig, dtype: mx.Dtype, conv_dtype: mx.Dtype, group: Group
) -> dict[str, Size]:
    return {
        "T": dtype,
        "C": conv_dtype,
        "K": sizes.linear_key_head_dim,
        "V": sizes.linear_value_head_dim,
        "G": sizes.linear_num_key_heads,
        "H": sizes.linear_num_value_heads,
        "TAPS": sizes.linear_conv_kernel_dim,
        "WARPS": group.warps,
        "OF_LANE": group.of_lane,
        "TOKENS": group.tokens,
        "TO_FINISH": TO_FINISH,
        "TO_PREPARE": TO_PREPARE,
        "TO_MIX": TO_MIX,
    }


@lru_cache(maxsize=256)
def _counts(
    sizes: LinearAttentionConfig, by_key_head: bool, length: int, job: int, by_sequence: bool
) -> mx.array:
    """Return the numbers that the kernel reads when it runs, at least (21,), int32."""
    places = [number for place in places_in_row(sizes, by_key_head) for number in place]
    return computed(in_device_memory(mx.array([length, job, int(by_sequence), *places], mx.int32)))


@lru_cache(maxsize=1)
def _all_used() -> mx.array:
    return computed(in_device_memory(mx.array([MOST_TOKENS], mx.int32)))


def places_in_row(sizes: LinearAttentionConfig, by_key_head: bool) -> Sequence[tuple[int, int, int]]:
    """Return where queries, keys, values, gates, beta and decay of a head are in a row of the projection.

    Each is a first place, the step from one key head to the next, and the step from one value head to the
    next of the same key head.
    """
    key, value = sizes.linear_key_head_dim, sizes.linear_value_head_dim
    heads, conv = sizes.linear_num_value_heads, sizes.conv_size
    share = heads // sizes.linear_num_key_heads
    few = conv + sizes.value_size
    if by_key_head:
        step = 2 * key + 2 * share * value
        queries_keys = [(0, step, 0), (key, step, 0)]
        values_gates = [(2 * key, step, value), (2 * key + share * value, step, value)]
        return [*queries_keys, *values_gates, (few, 2 * share, 1), (few + share, 2 * share, 1)]
    queries_keys = [(0, key, 0), (sizes.key_size, key, 0)]
    values_gates = [(2 * sizes.key_size, share * value, value), (conv, share * value, value)]
    return [*queries_keys, *values_gates, (few, share, 1), (few + heads, share, 1)]
