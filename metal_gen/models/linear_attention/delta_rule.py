"""The gated delta rule: attention whose memory is a matrix of constant size for each head.

With each token the memory fades, forgets what it has for the token's key, and keeps its value in its
place. Several tokens are computed in chunks: within one, what each token changes is found by a triangular
system, and the memory goes on from chunk to chunk.

Source: Gated Delta Networks (arXiv 2412.06464), DeltaNet (arXiv 2406.06484), and
`torch_chunk_gated_delta_rule` of Hugging Face transformers, whose numbers these must equal.

Axes: B sequences, L tokens, G key heads, H value heads, N chunks of C tokens each, K size of a key, V of a
value. All arrays are float32.
"""

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu

# A GPU is kept busy by large products; for a CPU the fewest operations are the fastest.
GPU_CHUNK, CPU_CHUNK = 64, 16


def delta_rule(
    queries: mx.array, keys: mx.array, values: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    """Read and write the memory, token by token, by plain operations.

    Args:
        queries: (B, L, G, K), scaled; each key head's are those of H / G value heads.
        keys: (B, L, G, K) of length 1.
        values: (B, L, H, V).
        decay: (B, L, H), the logarithm of how much is left of the memory.
        beta: (B, L, H), how much of a value is taken, 0 to 1.
        memory: (B, H, V, K) before the first token.

    Returns:
        (B, L, H, V), and the memory after the last token.
    """
    shared = values.shape[2] // keys.shape[2]
    if shared > 1:
        queries, keys = mx.repeat(queries, shared, axis=2), mx.repeat(keys, shared, axis=2)
    rule = _one_token if values.shape[1] == 1 else _chunks
    queries, keys, values, decay, beta = (
        array.swapaxes(1, 2) for array in (queries, keys, values, decay, beta)
    )
    outputs, memory = rule(queries, keys, values, decay, beta, memory)
    return outputs.swapaxes(1, 2), memory


def chunk_size() -> int:
    """C on this device."""
    return CPU_CHUNK if runs_on_cpu() else GPU_CHUNK


def _one_token(
    query: mx.array, key: mx.array, value: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    """The same for L = 1, with heads before tokens: (B, H, L, ...)."""
    memory = memory * mx.exp(decay)[..., None]
    change = (value - key @ memory.swapaxes(-1, -2)) * beta[..., None]
    memory = memory + change.swapaxes(-1, -2) * key
    return query @ memory.swapaxes(-1, -2), memory


def _chunks(
    queries: mx.array, keys: mx.array, values: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    """The same for several tokens, with heads before tokens: (B, H, L, ...)."""
    length = keys.shape[2]
    size = min(chunk_size(), length)
    weighted_keys, weighted_values = keys * beta[..., None], values * beta[..., None]
    queries, keys, weighted_keys, weighted_values, decay = (
        _in_chunks(array, size) for array in (queries, keys, weighted_keys, weighted_values, decay)
    )
    faded = mx.cumsum(decay, axis=-1)
    # How much is left, at a chunk's token, of what an earlier one has written.
    left = mx.exp(mx.where(mx.tri(size, dtype=mx.bool_), faded[..., None] - faded[..., None, :], -mx.inf))
    since_start, to_end = mx.exp(faded)[..., None], mx.exp(faded[..., -1:] - faded)[..., None]

    solution = _inverse(mx.tril((weighted_keys @ keys.swapaxes(-1, -2)) * left, -1))
    changes, reads = solution @ weighted_values, solution @ (weighted_keys * since_start)
    within = (queries @ keys.swapaxes(-1, -2)) * left
    queries, keys = queries * since_start, keys * to_end
    outputs = []
    for chunk in range(keys.shape[2]):
        before = memory.swapaxes(-1, -2)
        change = changes[:, :, chunk] - reads[:, :, chunk] @ before
        outputs.append(queries[:, :, chunk] @ before + within[:, :, chunk] @ change)
        memory = memory * since_start[:, :, chunk, -1:] + change.swapaxes(-1, -2) @ keys[:, :, chunk]
    return mx.concatenate(outputs, axis=2)[:, :, :length], memory


def _in_chunks(array: mx.array, size: int) -> mx.array:
    """(B, H, L, ...) to (B, H, N, C, ...), filled up with zeros, which change nothing."""
    batch, heads, length = array.shape[:3]
    missing = -length % size
    if missing:
        array = mx.pad(array, [(0, 0), (0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 3))
    return array.reshape(batch, heads, -1, size, *array.shape[3:])


def _inverse(below: mx.array) -> mx.array:
    """The inverse of a matrix that has ones on its diagonal and this below it, (..., C, C)."""
    if runs_on_cpu():
        return mx.linalg.tri_inv(mx.eye(below.shape[-1]) + below)
    return inverse_by_blocks(below)


def inverse_by_blocks(below: mx.array) -> mx.array:
    """The same by products alone: MLX inverts on a CPU only, where the rest of a pass would wait for it.

    The inverse of two blocks on the diagonal with one below is made of their inverses and
    - second^-1 below first^-1; from blocks of one number on, each step doubles their size.
    """
    count = below.shape[-1]
    size = 1 << (count - 1).bit_length()
    below = mx.pad(below, [(0, 0)] * (below.ndim - 2) + [(0, size - count)] * 2)
    lead = below.shape[:-2]
    inverses, block = mx.ones((*lead, size, 1, 1)), 1
    while block < size:
        pairs = size // (2 * block)
        paired = inverses.reshape(*lead, pairs, 2, block, block)
        first, second = paired[..., 0, :, :], paired[..., 1, :, :]
        blocks = below.reshape(*lead, pairs, 2, block, pairs, 2, block)[..., 1, :, :, 0, :]
        crossing = mx.diagonal(blocks, axis1=-4, axis2=-2)  # (..., block, block, pairs)
        corner = -(second @ mx.moveaxis(crossing, -1, -3) @ first)
        upper = mx.concatenate([first, mx.zeros_like(first)], axis=-1)
        inverses = mx.concatenate([upper, mx.concatenate([corner, second], axis=-1)], axis=-2)
        block *= 2
    return inverses.reshape(*lead, size, size)[..., :count, :count]
