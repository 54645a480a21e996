"""The gated delta rule: attention whose memory is a matrix of constant size for each head.

With each token, the memory fades, forgets its value for the token's key, and stores the token's value
instead. Several tokens are computed in chunks. Within a chunk, a triangular system gives what each token
changes. The memory then passes from chunk to chunk.

Source: Gated Delta Networks (arXiv 2412.06464), DeltaNet (arXiv 2406.06484), and
`torch_chunk_gated_delta_rule` of Hugging Face transformers; results equal those of the last.

Axes: B sequences, L tokens, G key heads, H value heads, N chunks of C tokens each, K size of a key, V size of
a value. All arrays are float32.
"""

import mlx.core as mx

from metal_gen.device.backend import runs_on_cpu

# Large products keep a GPU busy. On a CPU, the fewest operations are fastest.
GPU_CHUNK, CPU_CHUNK = 64, 16


def delta_rule(
    queries: mx.array, keys: mx.array, values: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    """Read and write the memory, token by token, with plain operations.

    Args:
        queries: Scaled queries, (B, L, G, K); each key head serves H / G value heads.
        keys: Keys of length 1, (B, L, G, K).
        values: Values, (B, L, H, V).
        decay: Logarithm of the share of the memory that remains, (B, L, H).
        beta: Share of a value that is stored, 0 to 1, (B, L, H).
        memory: Memory before the first token, (B, H, V, K).

    Returns:
        Outputs, (B, L, H, V), and the memory after the last token.
    """
    shared = values.shape[2] // keys.shape[2]
    if shared > 1:
        queries, keys = mx.repeat(queries, shared, axis=2), mx.repeat(keys, shared, axis=2)
    # Contiguous: a product of matrices would copy them each time that they are used.
    queries, keys, values, decay, beta = (
        mx.contiguous(array.swapaxes(1, 2)) for array in (queries, keys, values, decay, beta)
    )
    rule = _one_token if values.shape[2] == 1 else _chunks
    outputs, memory = rule(queries, keys, values, decay, beta, memory)
    return outputs.swapaxes(1, 2), memory


def chunk_size() -> int:
    """Return C on this device."""
    return CPU_CHUNK if runs_on_cpu() else GPU_CHUNK


def _one_token(
    query: mx.array, key: mx.array, value: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    """Compute one token, with heads before tokens: (B, H, 1, ...)."""
    memory = memory * mx.exp(decay)[..., None]
    change = (value - key @ memory.swapaxes(-1, -2)) * beta[..., None]
    memory = memory + change.swapaxes(-1, -2) * key
    return query @ memory.swapaxes(-1, -2), memory


def _chunks(
    queries: mx.array, keys: mx.array, values: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    """Compute several tokens, with heads before tokens: (B, H, L, ...)."""
    length = keys.shape[2]
    size = min(chunk_size(), length)
    weighted_keys, weighted_values = keys * beta[..., None], values * beta[..., None]
    queries, keys, weighted_keys, weighted_values, decay = (
        _in_chunks(array, size) for array in (queries, keys, weighted_keys, weighted_values, decay)
    )
    faded = mx.cumsum(decay, axis=-1)
    # What remains, at a token of a chunk, of what an earlier token has written.
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
    """Split (B, H, L, ...) into (B, H, N, C, ...), padded with zeros, which change nothing."""
    batch, heads, length = array.shape[:3]
    missing = -length % size
    if missing:
        array = mx.pad(array, [(0, 0), (0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 3))
    return array.reshape(batch, heads, -1, size, *array.shape[3:])


def _inverse(below: mx.array) -> mx.array:
    """Return the inverse of a matrix with ones on the diagonal and `below` under it, (..., C, C)."""
    if runs_on_cpu():
        return mx.linalg.tri_inv(mx.eye(below.shape[-1]) + below)
    return inverse_by_blocks(below)


def inverse_by_blocks(below: mx.array) -> mx.array:
    """Return the same inverse by products alone. MLX inverts on a CPU only, and a pass would wait for it.

    For two diagonal blocks and one below, the inverse consists of the inverses of the two and of
    - second^-1 below first^-1. Starting from blocks of one number, each step doubles the block size.
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
