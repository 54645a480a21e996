"""The gated delta rule: attention whose memory is a matrix of constant size for each head.

With each token the memory fades, forgets what it has for the token's key, and keeps its value in its
place. Several tokens are computed in chunks: within one, what each token changes is found by a triangular
system, and the memory goes on from chunk to chunk.

Source: Gated Delta Networks (arXiv 2412.06464), DeltaNet (arXiv 2406.06484), and
`torch_chunk_gated_delta_rule` of Hugging Face transformers, whose numbers these must equal.

Axes: B sequences, H value heads, L tokens, N chunks of C tokens each, K size of a key, V of a value.
All arrays are float32.
"""

import mlx.core as mx

CHUNK = 64


def delta_rule(
    queries: mx.array, keys: mx.array, values: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    """Read and write the memory, token by token.

    Args:
        queries: (B, H, L, K), scaled.
        keys: (B, H, L, K) of length 1.
        values: (B, H, L, V).
        decay: (B, H, L), the logarithm of how much is left of the memory.
        beta: (B, H, L), how much of a value is taken, 0 to 1.
        memory: (B, H, K, V) before the first token.

    Returns:
        (B, H, L, V), and the memory after the last token.
    """
    if keys.shape[2] == 1:
        return _one_token(queries, keys, values, decay, beta, memory)
    return _chunks(queries, keys, values, decay, beta, memory)


def _one_token(
    query: mx.array, key: mx.array, value: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    memory = memory * mx.exp(decay)[..., None]
    change = (value - key @ memory) * beta[..., None]
    memory = memory + key.swapaxes(-1, -2) * change
    return query @ memory, memory


def _chunks(
    queries: mx.array, keys: mx.array, values: mx.array, decay: mx.array, beta: mx.array, memory: mx.array
) -> tuple[mx.array, mx.array]:
    length = keys.shape[2]
    size = min(CHUNK, length)
    weighted_keys, weighted_values = keys * beta[..., None], values * beta[..., None]
    queries, keys, weighted_keys, weighted_values, decay = (
        _in_chunks(array, size) for array in (queries, keys, weighted_keys, weighted_values, decay)
    )
    faded = mx.cumsum(decay, axis=-1)
    # How much is left, at a chunk's token, of what an earlier one has written.
    left = mx.exp(mx.where(mx.tri(size, dtype=mx.bool_), faded[..., None] - faded[..., None, :], -mx.inf))
    since_start, to_end = mx.exp(faded)[..., None], mx.exp(faded[..., -1:] - faded)[..., None]

    system = mx.eye(size) + mx.tril((weighted_keys @ keys.swapaxes(-1, -2)) * left, -1)
    solution = mx.linalg.tri_inv(system, stream=mx.cpu)
    changes, reads = solution @ weighted_values, solution @ (weighted_keys * since_start)
    within = (queries @ keys.swapaxes(-1, -2)) * left
    queries, keys = queries * since_start, (keys * to_end).swapaxes(-1, -2)
    outputs = []
    for chunk in range(keys.shape[2]):
        change = changes[:, :, chunk] - reads[:, :, chunk] @ memory
        outputs.append(queries[:, :, chunk] @ memory + within[:, :, chunk] @ change)
        memory = memory * since_start[:, :, chunk, -1:] + keys[:, :, chunk] @ change
    return mx.concatenate(outputs, axis=2)[:, :, :length], memory


def _in_chunks(array: mx.array, size: int) -> mx.array:
    """(B, H, L, ...) to (B, H, N, C, ...), filled up with zeros, which change nothing."""
    batch, heads, length = array.shape[:3]
    missing = -length % size
    if missing:
        array = mx.pad(array, [(0, 0), (0, 0), (0, missing)] + [(0, 0)] * (array.ndim - 3))
    return array.reshape(batch, heads, -1, size, *array.shape[3:])
