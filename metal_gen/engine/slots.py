"""Continuous batching: many texts at once in a fixed number of slots, each as if it were alone.

A pass adds one token to every text and computes parts of waiting prompts. A text that ends frees its
slot, and the next prompt starts with the pass after. As in `generator`, a pass is built while the one
before is computed, and handed to the device when that one is done.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from metal_gen.cache.kv_cache import KVCache
from metal_gen.cache.slots import SlotCache
from metal_gen.engine.compiled_step import CompiledStep
from metal_gen.engine.generator import GeneratedToken, not_chosen, read_draw
from metal_gen.engine.slot_pass import NextToken, PromptPart, run_pass
from metal_gen.engine.slot_text import SlotText
from metal_gen.engine.stopping import FinishDetail, token_limit
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.sampler import Draw, DrawRule, LogitsError, Sampler, Status
from metal_gen.sampling.together import draw_together, key_rows, split_draws


@dataclass
class _Pass:
    """A pass that has been built.

    Attributes:
        fed: Texts whose last token it adds to the cache.
        prefilled: Texts whose prompts it computes a part of.
        draws: Draws it makes, with their texts.
        outputs: Arrays to compute.
    """

    fed: list[SlotText] = field(default_factory=list)
    prefilled: list[SlotText] = field(default_factory=list)
    draws: list[tuple[SlotText, Draw]] = field(default_factory=list)
    outputs: list[mx.array] = field(default_factory=list)


@dataclass
class _Rows:
    """Rows that go through the model together, and the rows among them that give a token."""

    periods: mx.array
    nexts: list[NextToken] = field(default_factory=list)
    parts: list[PromptPart] = field(default_factory=list)
    drawn: list[tuple[SlotText, int]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.nexts) + sum(len(part.tokens) for part in self.parts)

    def apart(self) -> "list[_Rows]":
        """Split into parts of prompts and next tokens. Leave out a group that is empty."""
        count = len(self.nexts)
        prompts = _Rows(
            self.periods, [], self.parts, [(text, row - count) for text, row in self.drawn[count:]]
        )
        nexts = _Rows(self.periods, self.nexts, [], self.drawn[:count])
        return [rows for rows in (prompts, nexts) if rows.count]


class SlotDecoder:
    """A model and the slots it writes to.

    Args:
        model: Model with its weights. To make texts independent of the other slots, pass the result of
            `with_independent_rows`.
        cache: Cache with one sequence per slot.
        chunk_size: Number of prompt tokens computed in one pass; limits how long texts wait.
        stride: Number of tokens in a part of a prompt; prompts are shared in multiples of it.
        compiles: Whether to compile the step that adds a token to every text without parts of prompts.

    Attributes:
        slot_passes: Number of slots, summed over all passes.
        busy_slot_passes: Number of slots that worked on a text, summed over all passes.
        shared_tokens: Number of prompt tokens that were copied from another prompt.
    """

    def __init__(
        self,
        model: Transformer,
        cache: KVCache,
        *,
        chunk_size: int = 512,
        stride: int = 64,
        compiles: bool = False,
    ) -> None:
        self.model = model
        self.slots = SlotCache(cache, stride)
        self.chunk_size = chunk_size
        self.slot_passes = self.busy_slot_passes = self.shared_tokens = 0
        self._texts: list[SlotText | None] = [None] * cache.config.batch_size
        self._waiting: list[SlotText] = []
        self._ahead: _Pass | None = None
        self._compiled = CompiledStep(model, cache) if compiles else None

    @property
    def in_use(self) -> int:
        """Number of slots that hold an unfinished text."""
        return sum(text is not None for text in self._texts)

    @property
    def has_free_slot(self) -> bool:
        """Whether another text can begin."""
        return None in self._texts

    def begin(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        *,
        endings: Mapping[int, FinishDetail],
        max_tokens: int | None = None,
    ) -> SlotText:
        """Give a text a slot. The next passes compute its prompt.

        Args:
            prompt: Token ids, at least one and no more than a slot holds.
            sampler: Sampler of this text.
            endings: Tokens that end the text once they have been returned, and the reason for each.
            max_tokens: Maximum number of new tokens; default: until the slot is full.
        """
        slot = self._texts.index(None)
        limit, limited_by = token_limit(max_tokens, self.slots.capacity - len(prompt))
        rope = self.model.rope
        shareable = prompt if rope.periods(len(prompt)) is rope.periods(1) else ()
        text = SlotText(slot, prompt, shareable, sampler, endings, limit, limited_by)
        self.shared_tokens += self.slots.reuse(slot, shareable)
        self._texts[slot] = text
        self._waiting.append(text)
        return text

    def end(self, text: SlotText) -> None:
        """Free the slot of a text and discard what is being computed for it."""
        if not text.is_over:
            text.is_over = True
            self._texts[text.slot] = None
            if text in self._waiting:
                self._waiting.remove(text)

    def step(self) -> list[tuple[SlotText, GeneratedToken | LogitsError]]:
        """Compute a pass and return the tokens that it drew.

        Returns:
            For each text whose prompt is in the cache, a token, or the error why there is none, which ends
            the text as a last token does. The next pass is then being computed.
        """
        current = self._ahead or self._build()
        if self._ahead is None:
            mx.async_eval(current.outputs)
        following = self._build()
        mx.eval(current.outputs)
        self.slot_passes += len(self._texts)
        self.busy_slot_passes += sum(not text.is_over for text in (*current.fed, *current.prefilled))
        given: list[tuple[SlotText, GeneratedToken | LogitsError]] = []
        for text, draw in current.draws:
            if text.is_over:
                continue
            token, status = read_draw(draw)
            if status == Status.UNCERTAIN:
                self._draw_again(text, draw, following)
            elif status == Status.NOT_FINITE:
                self.end(text)
                given.append((text, not_chosen(draw)))
            else:
                given.append((text, self._token(text, draw, token)))
        self._ahead = following if following.outputs else None
        if self._ahead is not None:
            mx.async_eval(self._ahead.outputs)
        return given

    def _token(self, text: SlotText, draw: Draw, token: int) -> GeneratedToken:
        is_last = draw.index + 1 == text.limit
        finish = text.endings.get(token, text.limited_by if is_last else None)
        if finish is not None:
            self.end(text)
        return GeneratedToken(token, draw, finish)

    def _draw_again(self, text: SlotText, missed: Draw, following: _Pass) -> None:
        """Search the whole vocabulary for a token, and let the text continue one pass later."""
        if text in following.fed:
            self.slots.rewind(text.slot, 1)
            text.sampler.retract(1)
        text.draw = text.sampler.redraw(missed)
        following.draws = [(other, draw) for other, draw in following.draws if other is not text]
        following.draws.append((text, text.draw))
        following.outputs += text.draw.results

    def _build(self) -> _Pass:
        """Build the pass that follows those already built."""
        built = _Pass()
        built.fed = [
            text for text in self._texts if text is not None and text.draw is not None and not text.is_last
        ]
        groups: dict[int, _Rows] = {}
        self._add_nexts(built.fed, groups)
        self._add_prompts(built.prefilled, groups)
        # The compiled step has exactly one row for each slot.
        compiled = self._compiled if len(groups) == 1 else None
        for group in groups.values():
            for rows in [group] if compiled is None else group.apart():
                for text, draw in self._run(rows, compiled):
                    text.draw = draw
                    built.draws.append((text, draw))
                    built.outputs += draw.results
        if groups:
            built.outputs += self.slots.cache.buffers
        return built

    def _rows(self, groups: dict[int, _Rows], sequence_length: int) -> _Rows:
        """Return the rows that use the rotary periods of this length; nearly always all rows."""
        periods = self.model.rope.periods(sequence_length)
        return groups.setdefault(id(periods), _Rows(periods))

    def _add_nexts(self, texts: Sequence[SlotText], groups: dict[int, _Rows]) -> None:
        for text in texts:
            assert text.draw is not None
            position = self.slots.claim(text.slot, 1)
            rows = self._rows(groups, position + 1)
            rows.drawn.append((text, len(rows.nexts)))
            rows.nexts.append(NextToken(text.slot, text.draw.token, position))
            text.sampler.accept(text.draw)

    def _add_prompts(self, prefilled: list[SlotText], groups: dict[int, _Rows]) -> None:
        """Add parts of the prompts that have waited longest.

        A prompt that begins like another one of this pass waits for it, to copy the part they share.
        """
        room = self.chunk_size
        for text in tuple(self._waiting):
            slot, prompt, shareable = text.slot, text.prompt, text.shareable
            self.shared_tokens += self.slots.extend(slot, shareable)
            position = self.slots.positions[slot]
            if any(self.slots.has_in_common(other.shareable, shareable) > position for other in prefilled):
                continue
            rows = self._rows(groups, len(prompt))
            while room > 0 and position < len(prompt):
                tokens = prompt[position : position + self.slots.stride]
                rows.parts.append(PromptPart(slot, tokens, self.slots.claim(slot, len(tokens))))
                position += len(tokens)
                room -= len(tokens)
            if position == len(prompt):
                rows.drawn.append((text, rows.count - 1))
                self._waiting.remove(text)
            prefilled.append(text)
            if room <= 0:
                break
        for text in prefilled:
            self.slots.hold(text.slot, text.shareable)

    def _run(self, rows: _Rows, compiled: CompiledStep | None) -> list[tuple[SlotText, Draw]]:
        texts = [text for text, _ in rows.drawn]
        samplers = [text.sampler for text in texts]
        indices = [0 if text.draw is None else text.draw.index + 1 for text in texts]
        if compiled is not None and not rows.parts:
            draws = self._run_compiled(compiled, rows, samplers, indices)
            return list(zip(texts, draws, strict=True))
        hidden = run_pass(self.model, self.slots, rows.periods, rows.nexts, rows.parts)
        if not texts:
            return []
        if len(texts) < rows.count:
            hidden = hidden[mx.array([row for _, row in rows.drawn])]
        return list(zip(texts, draw_together(self.model.logits(hidden), samplers, indices), strict=True))

    def _run_compiled(
        self, compiled: CompiledStep, rows: _Rows, samplers: Sequence[Sampler], indices: Sequence[int]
    ) -> list[Draw]:
        """Run all slots. Results of slots without a text are written to unused positions."""
        last = self.slots.capacity - 1
        for slot, position in enumerate(self.slots.positions):
            if position > last:
                self.slots.forget(slot)
        places = [min(position, last) for position in self.slots.positions]
        tokens = [mx.zeros(1, mx.int32)] * len(places)
        by_slot = [(samplers[0], 0)] * len(places)
        for row, each in enumerate(rows.nexts):
            places[each.slot], tokens[each.slot] = each.position, each.token.astype(mx.int32)
            by_slot[each.slot] = samplers[row], indices[row]
        rule: DrawRule | None = samplers[0].rule
        assert rule is not None
        if rule.logprobs is not None or not all(
            sampler.rule == rule and sampler.follows_rule_alone(index)
            for sampler, index in zip(samplers, indices, strict=True)
        ):
            rule = None
        logits, outcomes, _ = compiled.run(
            mx.concatenate(tokens), places, rows.periods, rule, *key_rows(*zip(*by_slot, strict=True))
        )
        slots = [each.slot for each in rows.nexts]
        if outcomes is None:
            return draw_together(logits[mx.array(slots)], samplers, indices)
        draws = split_draws(logits, outcomes, [index for _, index in by_slot])
        return [draws[slot] for slot in slots]
