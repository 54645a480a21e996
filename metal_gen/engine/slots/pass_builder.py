"""Builds the passes over the slots of a cache: which rows go through the model together, and what is drawn.

A pass is built before the one before it is done: it claims positions, and samplers record tokens that nobody
has read yet.

Prompts and forced tokens are computed in parts, for which a pass has limited room. Where a part ends depends
on its text alone: on the number of rows depend the last bits of attention. A part without room waits as a
whole.
"""

from collections.abc import Mapping, Sequence

import mlx.core as mx

from metal_gen.cache.slots import SlotCache
from metal_gen.engine.compiled.step import CompiledStep
from metal_gen.engine.decoder import most_forced
from metal_gen.engine.slot_pass import NextToken, PromptPart, run_pass
from metal_gen.engine.slots.built_pass import BuiltPass, PassRows, draw_places
from metal_gen.engine.slots.compiled_slots import CompiledSlots
from metal_gen.engine.slots.slot_text import SlotText
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.draw_rule import Draw
from metal_gen.sampling.together import draw_together


class PassBuilder:
    """Builds one pass after another.

    Args:
        model: Model with its weights.
        slots: Slots that take the keys and values.
        chunk_size: Most tokens of prompts and forced tokens in one pass, to which each other text adds one;
            no fewer than the stride of the slots.
        compiled: Compiled step that adds a token to every text; None to use plain operations.

    Attributes:
        shared_tokens: Number of prompt tokens that were copied from another prompt.
    """

    def __init__(
        self, model: Transformer, slots: SlotCache, chunk_size: int, compiled: CompiledStep | None
    ) -> None:
        self.shared_tokens = 0
        self._model = model
        self._slots = slots
        self._chunk_size = chunk_size
        self._compiled = None if compiled is None else CompiledSlots(compiled, slots)
        # Texts whose prompts are not yet built as a whole, those that have waited longest first.
        self._waiting: list[SlotText] = []
        # Whether prompts come before forced tokens, and the slot whose forced tokens come first.
        self._prompts_first, self._first_forced = False, 0

    def add_prompt(self, text: SlotText) -> None:
        """Add a text whose prompt the next passes compute, except for what a slot holds of it."""
        self.shared_tokens += self._slots.reuse(text.slot, text.shareable)
        self._waiting.append(text)

    def drop_prompt(self, text: SlotText) -> None:
        """Leave out what is not built yet of the prompt of a text that is over."""
        if text in self._waiting:
            self._waiting.remove(text)

    def build(self, texts: Sequence[SlotText | None]) -> BuiltPass:
        """Build the pass that follows those already built, for the texts of all slots."""
        built = BuiltPass()
        self._slots.begin_pass()
        following = [
            text
            for text in texts
            if text is not None
            and not text.is_last
            and (text.draw is not None or (text.forced and text not in self._waiting))
        ]
        built.fed = [text for text in following if not text.forced]
        groups: dict[int, PassRows] = {}
        self._add_nexts(built.fed, groups)
        if self._prompts_first:
            self._add_prompts(built.prefilled, groups)
        self._add_forced([text for text in following if text.forced], built.fed, groups)
        if not self._prompts_first:
            self._add_prompts(built.prefilled, groups)
        # Prompts that found no room have a turn, so that neither they nor forced tokens wait for long.
        self._prompts_first = bool(self._waiting) and not built.prefilled
        # The compiled step has exactly one row for each slot.
        compiled = self._compiled if len(groups) == 1 else None
        stages = [
            rows for group in groups.values() for rows in ([group] if compiled is None else group.apart())
        ]
        for rows in stages:
            built.first = list(built.outputs)
            hidden = self._run(rows, compiled, built)
            if hidden is not None and rows is not stages[-1]:
                built.outputs.append(hidden)
        self._slots.end_pass()
        return built

    def _rows(self, groups: dict[int, PassRows], sequence_length: int) -> PassRows:
        """Return the rows that use the rotary periods of this length; nearly always all rows."""
        periods = self._model.rope.periods(sequence_length)
        return groups.setdefault(id(periods), PassRows(periods))

    def _add_nexts(self, texts: Sequence[SlotText], groups: dict[int, PassRows]) -> None:
        for text in texts:
            assert text.draw is not None
            position = self._slots.claim(text.slot, 1)
            rows = self._rows(groups, position + 1)
            rows.drawn.append((text, len(rows.nexts)))
            rows.nexts.append(NextToken(text.slot, text.draw, position))
            text.sampler.accept(text.draw)

    def _room(self, groups: Mapping[int, PassRows]) -> int:
        """Return how many more tokens of prompts and forced tokens a pass may have."""
        return self._chunk_size - sum(len(part.tokens) for rows in groups.values() for part in rows.parts)

    def _add_forced(
        self, texts: Sequence[SlotText], fed: list[SlotText], groups: dict[int, PassRows]
    ) -> None:
        """Add a part of each text's forced tokens. After one without room, its slot is the first in turn."""
        positions, room = self._slots.positions, self._room(groups)
        for text in sorted(texts, key=lambda text: (text.slot - self._first_forced) % len(positions)):
            most = min(len(text.forced), self._chunk_size)
            most = most_forced(self._model.rope, positions[text.slot], most)
            if most > room:
                self._first_forced = text.slot
                break
            room -= most
            fed.append(text)
            tokens, text.forced = text.forced[:most], text.forced[most:]
            start = self._slots.claim(text.slot, len(tokens))
            rows = self._rows(groups, start + len(tokens))
            rows.parts.append(PromptPart(text.slot, tokens, start))
            text.sampler.note(tokens)
            if not text.forced:
                rows.drawn.append((text, rows.count - 1))

    def _add_prompts(self, prefilled: list[SlotText], groups: dict[int, PassRows]) -> None:
        """Add parts of the prompts that have waited longest.

        A prompt that begins like another one of this pass waits for it, to copy the part they share.
        """
        room = self._room(groups)
        for text in tuple(self._waiting):
            slot, prompt, shareable = text.slot, text.prompt, text.shareable
            self.shared_tokens += self._slots.extend(slot, shareable)
            position = self._slots.positions[slot]
            if any(self._slots.reusable_length(other.shareable, shareable) > position for other in prefilled):
                continue
            tokens = prompt[position : position + self._slots.stride]
            if len(tokens) > room:
                break
            rows = self._rows(groups, len(prompt))
            others = [other.shareable for other in self._waiting if other is not text]
            end = self._slots.part_end(slot, shareable, others) or len(prompt)
            while position < end and len(tokens) <= room:
                rows.parts.append(PromptPart(slot, tokens, self._slots.claim(slot, len(tokens))))
                position += len(tokens)
                room -= len(tokens)
                tokens = prompt[position : position + self._slots.stride]
            if position == len(prompt):
                if not text.forced:
                    rows.drawn.append((text, rows.count - 1))
                self._waiting.remove(text)
            prefilled.append(text)
            if not room:
                break
        for text in prefilled:
            self._slots.hold(text.slot, text.shareable)

    def _run(self, rows: PassRows, compiled: CompiledSlots | None, built: BuiltPass) -> mx.array | None:
        """Run rows through the model. Draw the next tokens, unless a guide must be asked first.

        Returns:
            Hidden states, if nothing is drawn from them.
        """
        texts = [text for text, _ in rows.drawn]
        draws: Sequence[Draw] | None = None
        if compiled is not None and not rows.parts:
            logits, draws = compiled.run(rows, texts)
        else:
            hidden = run_pass(self._model, self._slots, rows.periods, rows.nexts, rows.parts)
            if not texts:
                return hidden
            if len(texts) < rows.count:
                hidden = hidden[mx.array([row for _, row in rows.drawn])]
            logits = self._model.logits(hidden)
        if any(text.bounds.guide is not None for text in texts):
            built.leave_undrawn(texts, logits)
            return None
        draws = draws or draw_together(logits, *draw_places(texts))
        for text, draw in zip(texts, draws, strict=True):
            built.add_draw(text, draw)
        return None
