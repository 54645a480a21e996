"""Which keys a token may look at, where that is not simply all before it.

Axes: B sequences, L new tokens, S keys.
"""

import mlx.core as mx


def sliding_window_mask(start: int, length: int, window: int) -> mx.array | None:
    """Which keys each new token sees in a sliding layer: itself and the `window` - 1 before.

    Args:
        start: Position of the first new token, and so the number of older keys.
        length: New tokens.
        window: Tokens seen, the querying one included.

    Returns:
        Boolean (L, S) with S = start + length; None where a mask is not needed, because the
        window covers everything or there is a single query.
    """
    if length == 1 or start + length <= window:
        return None
    queries = mx.arange(start, start + length)[:, None]
    keys = mx.arange(start + length)[None]
    return (keys <= queries) & (keys > queries - window)


def seen_by(positions: mx.array, places: mx.array, window: int | None) -> tuple[mx.array, mx.array | None]:
    """Which of the first places each of several sequences sees from its position.

    Args:
        positions: (B,) of the querying tokens.
        places: (S,) from 0 on.
        window: Of sliding layers.

    Returns:
        Boolean (B, 1, 1, S), for full layers and for sliding ones; None without a window.
    """
    ends = positions[:, None, None, None]
    seen = places <= ends
    return seen, seen & (places > ends - window) if window else None
