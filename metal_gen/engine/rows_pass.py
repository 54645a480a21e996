"""A forward pass over successive tokens of one text, such as a token and the guesses after it.

Axes: L new tokens, S positions of the cache.
"""

import mlx.core as mx

from metal_gen.cache.forms import Heads
from metal_gen.cache.hybrid import HybridCache
from metal_gen.cache.kv_cache import KVCache
from metal_gen.device.backend import runs_on_cuda
from metal_gen.engine.read_lengths import attended_length
from metal_gen.models.attention import Part, Step
from metal_gen.models.masks import seen_in_turn
from metal_gen.models.transformer import Transformer


def run_rows(
    model: Transformer, tokens: mx.array, cache: KVCache, *, in_stretches: bool | None = None
) -> mx.array:
    """Run successive tokens through a model, and add them to its cache.

    Args:
        model: Model with its weights.
        tokens: Token ids, (L,).
        cache: Cache of one text.
        in_stretches: Whether attention reads a part of the cache whose length grows in a few strides, rather
            than all tokens; by default with CUDA. There cuDNN builds a graph for each new length, which takes
            as long as many steps.

    Returns:
        Normalized hidden states, (L, hidden), not computed yet.
    """
    if not (runs_on_cuda() if in_stretches is None else in_stretches):
        return model(tokens[None], cache)[0]
    cache.claim(tokens.size)
    cache.settle()
    length = attended_length(cache.position, cache.config.max_seq_len)
    positions, places = mx.arange(cache.start, cache.position), mx.arange(length)
    step = Step(
        cache=_Stretch(cache, length),
        batch=1,
        length=tokens.size,
        offset=cache.start,
        periods=model.rope.periods(cache.position),
        parts=[Part(*seen_in_turn(positions, places, model.config.sliding_window))],
        states=cache if isinstance(cache, HybridCache) else None,
    )
    return model.run(tokens, step)


class _Stretch:
    """Keys and values up to a length, some of which no token has written yet.

    Args:
        cache: Cache to write to.
        length: Number of positions to attend to.
    """

    def __init__(self, cache: KVCache, length: int) -> None:
        self._cache = cache
        self._length = length

    def update(self, layer: int, keys: mx.array, values: mx.array) -> tuple[Heads, Heads]:
        """Implement `LayerCache.update`."""
        self._cache.update(layer, keys, values)
        form = self._cache.form
        first, count = layer * len(form.names), len(form.names)
        return form.decode(
            [buffer[:1, :, : self._length] for buffer in self._cache.buffers[first : first + count]]
        )
