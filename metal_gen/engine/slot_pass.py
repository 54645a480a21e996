"""One forward pass over the slots of a cache: one token of each text, and parts of prompts.

All rows go through the projections together, so that weights are read once. Attention treats rows
separately if they attend to different stretches of the cache. A stretch depends only on the text, never
on the other slots. So does each result, as far as the matrix products allow it
(`models/rows/independence.py`).

Axes: R rows, H heads, D head size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import mlx.core as mx

from metal_gen.cache.forms import Heads
from metal_gen.cache.hybrid_slots import HybridSlotCache
from metal_gen.cache.slots import SlotCache
from metal_gen.engine.read_lengths import attended_length
from metal_gen.models.attention import Part, Step
from metal_gen.models.masks import seen_by
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.draw_rule import Draw
from metal_gen.sampling.together import join_tokens


@dataclass(frozen=True)
class NextToken:
    """The last token of a text, to be added to the cache.

    Args:
        slot: Slot of the text.
        draw: Draw of the token, which need not be computed yet.
        position: Position of the token.
    """

    slot: int
    draw: Draw
    position: int


@dataclass(frozen=True)
class PromptPart:
    """Successive tokens of a prompt, to be added to the cache.

    Args:
        slot: Slot of the text.
        tokens: Token ids.
        start: Position of the first token.
    """

    slot: int
    tokens: Sequence[int]
    start: int


def run_pass(
    model: Transformer,
    slots: SlotCache,
    periods: mx.array,
    nexts: Sequence[NextToken],
    prompts: Sequence[PromptPart],
    *,
    in_stages: bool = False,
) -> mx.array:
    """Run rows through a model.

    Args:
        model: Model with its weights.
        slots: Slots that take the keys and values.
        periods: Periods of the rotary embedding.
        nexts: Next tokens in slot order, one row each.
        prompts: Parts of prompts, one row per token.
        in_stages: Compute each stage of a layer before the next is built, as on `Step`.

    Returns:
        Normalized hidden states, (R, hidden), not computed yet.
    """
    ids = [join_tokens([each.draw for each in nexts])] if nexts else []
    ids += [mx.array(list(part.tokens), dtype=mx.int32) for part in prompts]
    places = [each.slot for each in nexts]
    offsets = [each.position for each in nexts]
    for part in prompts:
        places += [part.slot] * len(part.tokens)
        offsets += range(part.start, part.start + len(part.tokens))
    positions = mx.array(offsets, dtype=mx.int32)
    step = Step(
        cache=_Writes(slots, places, positions),
        batch=len(offsets),
        length=1,
        offset=positions,
        periods=periods,
        parts=[
            *_parts_of_nexts(nexts, slots.capacity, model),
            *_parts_of_prompts(prompts, len(nexts), model),
        ],
        in_stages=in_stages,
        states=slots if isinstance(slots, HybridSlotCache) else None,
    )
    return model.run(mx.concatenate(ids), step)


def _parts_of_nexts(nexts: Sequence[NextToken], capacity: int, model: Transformer) -> Iterator[Part]:
    """Group neighboring slots that attend to equally many positions."""

    def stretch(indexed: tuple[int, NextToken]) -> tuple[int, int]:
        row, each = indexed
        return each.slot - row, attended_length(each.position + 1, capacity)

    for (first_slot, length), group in groupby(enumerate(nexts), stretch):
        members = list(group)
        begin, end = members[0][0], members[-1][0] + 1
        positions = mx.array([each.position for _, each in members], dtype=mx.int32)
        config = model.config
        mask, sliding_mask = seen_by(
            positions, mx.arange(length), config.sliding_window, config.num_attention_heads
        )
        yield Part(
            mask,
            sliding_mask,
            rows=slice(begin, end),
            sequences=slice(first_slot + begin, first_slot + end),
            length=length,
        )


def _parts_of_prompts(prompts: Sequence[PromptPart], first_row: int, model: Transformer) -> Iterator[Part]:
    for part in prompts:
        length = len(part.tokens)
        yield replace(
            Part.causal(part.start, length, model.config.sliding_window),
            rows=slice(first_row, first_row + length),
            is_one_text=True,
            sequences=slice(part.slot, part.slot + 1),
            length=part.start + length,
        )
        first_row += length


class _Writes:
    """Writes the rows of one pass to their slots and positions."""

    def __init__(self, slots: SlotCache, places: Sequence[int], positions: mx.array) -> None:
        self._form = slots.cache.form
        self._buffers = slots.cache.buffers
        self._slots = mx.array(list(places), dtype=mx.int32)
        self._positions = positions

    def update(self, layer: int, keys: mx.array, values: mx.array) -> tuple[Heads, Heads]:
        """Write new keys and values, (R, H, 1, D) each, and return what the buffers hold, (B, H, S, D)."""
        count = len(self._form.names)
        buffers = self._buffers[layer * count : (layer + 1) * count]
        for buffer, new in zip(buffers, self._form.encode(keys, values), strict=True):
            # One write for all rows, in place: on CUDA, assigning to a slice copies the buffer.
            buffer[self._slots, :, self._positions] = new[:, :, 0]
        return self._form.decode(buffers)
