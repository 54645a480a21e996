"""The compiled step of all slots at once."""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.cache.slots import SlotCache
from metal_gen.engine.built_pass import PassRows, draw_places
from metal_gen.engine.compiled.step import CompiledStep
from metal_gen.engine.slot_text import SlotText
from metal_gen.sampling.draw_rule import Draw, DrawRule
from metal_gen.sampling.together import key_rows, split_draws


def run_compiled(
    compiled: CompiledStep, slots: SlotCache, rows: PassRows, texts: Sequence[SlotText]
) -> tuple[mx.array, list[Draw] | None]:
    """Run all slots. Results of slots without a text are written to unused positions.

    Returns:
        Logits of all slots, (B, V), and the draws of the texts, if all texts have the same rule and no
        guide; otherwise logits of the texts alone, (R, V).
    """
    samplers, indices = draw_places(texts)
    last = slots.capacity - 1
    for slot, position in enumerate(slots.positions):
        if position > last:
            slots.forget(slot)
    taken = [each.slot for each in rows.nexts]
    places = [min(position, last) for position in slots.positions]
    tokens = [mx.zeros(1, mx.int32)] * len(places)
    by_slot = [(samplers[0], 0)] * len(places)
    for row, each in enumerate(rows.nexts):
        places[each.slot], tokens[each.slot] = each.position, each.token.astype(mx.int32)
        by_slot[each.slot] = samplers[row], indices[row]
    rule: DrawRule | None = samplers[0].rule
    assert rule is not None
    if rule.logprobs is not None or not all(
        text.sampler.rule == rule
        and text.sampler.follows_rule_alone(text.tokens)
        and text.bounds.guide is None
        for text in texts
    ):
        rule = None
    bases, word_rows = key_rows(*zip(*by_slot, strict=True))
    results = compiled.run(
        mx.concatenate(tokens),
        places,
        rows.periods,
        active=[slot in taken for slot in range(len(places))],
        rule=rule,
        bases=bases,
        indices=word_rows,
    )
    if compiled.model.has_kernel:
        slots.cache.note_step(results.logits)
    if results.outcomes is None:
        return results.logits[mx.array(taken)], None
    draws = split_draws(results.logits, results.outcomes, [index for _, index in by_slot])
    return results.logits, [draws[slot] for slot in taken]
