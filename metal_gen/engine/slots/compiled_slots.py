"""The compiled step of all slots at once."""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.cache.slots import SlotCache
from metal_gen.engine.compiled.step import CompiledStep
from metal_gen.engine.slots.built_pass import PassRows, draw_places
from metal_gen.engine.slots.slot_text import SlotText
from metal_gen.sampling.draw_rule import Draw, DrawRule
from metal_gen.sampling.random_keys import words_of
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.together import join_bases, join_tokens, split_draws


class CompiledSlots:
    """Adds a token to every text at once.

    Args:
        compiled: The compiled step of as many sequences as there are slots.
        slots: The slots.
    """

    def __init__(self, compiled: CompiledStep, slots: SlotCache) -> None:
        self._compiled = compiled
        self._slots = slots
        # Samplers by slot and their bases, (B, 2): they change only when a text begins.
        self._samplers: list[Sampler] = []
        self._bases = mx.zeros((0, 2), mx.uint32)

    def run(self, rows: PassRows, texts: Sequence[SlotText]) -> tuple[mx.array, list[Draw] | None]:
        """Run all slots. Results of slots without a text are written to unused positions.

        Returns:
            Logits of all slots, (B, V), and the draws of the texts, if all texts have the same rule and no
            guide; otherwise logits of the texts alone, (R, V).
        """
        slots, (samplers, indices) = self._slots, draw_places(texts)
        last = slots.capacity - 1
        for slot, position in enumerate(slots.positions):
            if position > last:
                slots.forget(slot)
        places = [min(position, last) for position in slots.positions]
        draws: list[Draw | None] = [None] * len(places)
        for each in rows.nexts:
            places[each.slot], draws[each.slot] = each.position, each.draw
        taken = [each.slot for each in rows.nexts]
        by_slot, index_by_slot = [samplers[0]] * len(places), [0] * len(places)
        for row, slot in enumerate(taken):
            by_slot[slot], index_by_slot[slot] = samplers[row], indices[row]
        rule = _rule_of(texts)
        results = self._compiled.run(
            join_tokens(draws),
            places,
            rows.periods,
            active=[draw is not None for draw in draws],
            rule=rule,
            bases=None if rule is None else self._bases_of(by_slot),
            indices=None if rule is None else words_of(index_by_slot),
        )
        if self._compiled.model.has_kernel:
            slots.cache.note_step(results.logits)
        if results.outcomes is None:
            return results.logits[mx.array(taken)], None
        drawn = split_draws(results.logits, results.outcomes, index_by_slot)
        return results.logits, [drawn[slot] for slot in taken]

    def _bases_of(self, samplers: list[Sampler]) -> mx.array:
        """Return the bases of the samplers by slot, (B, 2); those of a slot without a text are not used."""
        if samplers != self._samplers:
            self._samplers, self._bases = samplers, join_bases(samplers)
        return self._bases


def _rule_of(texts: Sequence[SlotText]) -> DrawRule | None:
    """Return the rule that all texts follow alone; None if they need draws of their own."""
    rule = texts[0].sampler.rule
    if rule.logprobs is None and all(
        text.sampler.rule == rule
        and text.sampler.follows_rule_alone(text.tokens)
        and text.bounds.guide is None
        for text in texts
    ):
        return rule
    return None
