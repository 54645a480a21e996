"""Attention masks, for cases where a token does not simply see all earlier keys.

Axes: B sequences, L new tokens, S keys.
"""

import mlx.core as mx

from metal_gen.device.backend import runs_on_metal


def sliding_window_mask(start: int, length: int, window: int) -> mx.array | None:
    """Return which keys each new token sees in a sliding layer: its own and the `window` - 1 before.

    Args:
        start: Position of the first new token, which equals the number of older keys.
        length: Number of new tokens.
        window: Number of tokens seen, including the querying one.

    Returns:
        Boolean (L, S) with S = start + length. None if no mask is needed, because the window covers
        everything or there is a single query.
    """
    if length == 1 or start + length <= window:
        return None
    queries = mx.arange(start, start + length)[:, None]
    keys = mx.arange(start + length)[None]
    return (keys <= queries) & (keys > queries - window)


def seen_by(
    positions: mx.array, places: mx.array, window: int | None, heads: int = 1
) -> tuple[mx.array, mx.array | None]:
    """Return which places of the cache each of several sequences sees from its position.

    Args:
        positions: Positions of the querying tokens, (B,).
        places: Places of the cache from 0 on, (S,).
        window: Window of sliding layers.
        heads: Number of query heads, H. Metal gets masks that repeat for each of them.

    Returns:
        Boolean (B, 1, 1, S) or (B, H, 1, S) for full layers, and the same for sliding layers; None without a
        window.
    """
    ends = positions[:, None, None, None]
    seen = places <= ends
    return _for_heads(seen, heads), _for_heads(seen & (places > ends - window), heads) if window else None


def seen_in_turn(
    positions: mx.array, places: mx.array, window: int | None
) -> tuple[mx.array, mx.array | None]:
    """Return which places of the cache each of several successive tokens of one text sees.

    Args:
        positions: Positions of the tokens, (L,).
        places: Places of the cache from 0 on, (S,).
        window: Window of sliding layers.

    Returns:
        Boolean (L, S) for full layers, and the same for sliding layers; None without a window.
    """
    ends = positions[:, None]
    seen = places <= ends
    return seen, seen & (places > ends - window) if window else None


def _for_heads(mask: mx.array, heads: int) -> mx.array:
    """Repeat the mask of several sequences for each head, once, where a kernel would do so in every layer.

    Source: `mask_copy_unless` in `mlx/backend/metal/scaled_dot_product_attention.cpp` of MLX 0.32.
    """
    batch, _, length, places = mask.shape
    if batch == 1 or not runs_on_metal():
        return mask
    return mx.contiguous(mx.broadcast_to(mask, (batch, heads, length, places)))
