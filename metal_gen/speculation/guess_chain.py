"""Draws guesses one after another, each from the one before."""

from collections.abc import Callable

import mlx.core as mx

from metal_gen.device.extra_memory import wait_for_release


def draw_in_turn(
    first: mx.array, following: Callable[[mx.array, int], mx.array], count: int, *, waits: bool = True
) -> mx.array:
    """Draw guesses from a model that writes to a cache of its own.

    The graph of each guess is built while the guess before is computed, and is handed over when that is done:
    MLX copies a whole buffer that is written while it is read. A kernel that writes in place need not wait.

    Args:
        first: The first guess, (1,).
        following: Builds the guess, (1,), at the given place after another guess.
        count: Number of guesses, at least 1.
        waits: Whether to wait for each guess before the next one is handed over.

    Returns:
        All guesses, (count,). The last is still being computed.
    """
    guesses = [first]
    mx.async_eval(first)
    while len(guesses) < count:
        after = following(guesses[-1], len(guesses))
        if waits:
            mx.eval(guesses[-1])
            wait_for_release()
        mx.async_eval(after)
        guesses.append(after)
    return mx.concatenate(guesses)
