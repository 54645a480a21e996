"""Continuous batching: many texts at once in a fixed number of slots, each as if it were alone.

A pass adds one token to every text, and computes parts of prompts and of forced tokens. A text that ends
frees its slot, and the next prompt starts with the pass after. As in `generator`, a pass is built
(`pass_builder`) while the one before is computed, and handed to the device when that one is done.
"""

from collections.abc import Mapping, Sequence

import mlx.core as mx

from metal_gen.cache.hybrid_slots import new_slots
from metal_gen.cache.kv_cache import KVCache
from metal_gen.device.extra_memory import wait_for_release
from metal_gen.engine.compiled.step import CompiledStep
from metal_gen.engine.generator import GeneratedToken, not_chosen, read_draw
from metal_gen.engine.guide import TextBounds, TokenGuide
from metal_gen.engine.slots.built_pass import BuiltPass, draw_places
from metal_gen.engine.slots.pass_builder import PassBuilder
from metal_gen.engine.slots.slot_text import SlotText
from metal_gen.engine.stopping import FinishDetail, token_limit
from metal_gen.errors import MetalGenError
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.draw_rule import Draw, Status
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.together import draw_together


class SlotDecoder:
    """A model and the slots it writes to.

    Args:
        model: Model with its weights. To make texts independent of the other slots, pass the result of
            `with_independent_rows`.
        cache: Cache with one sequence per slot.
        chunk_size: Most tokens of prompts and forced tokens in one pass, to which each other text adds one;
            limits memory, and how long texts wait.
        stride: Number of tokens in a part of a prompt, `chunk_size` at most; prompts are shared in multiples
            of it.
        compiles: Whether to compile the step that adds a token to every text without parts of prompts.

    Attributes:
        slot_passes: Number of slots, summed over all passes.
        busy_slot_passes: Number of slots that worked on a text, summed over all passes.
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
        self.slots = new_slots(cache, min(stride, chunk_size))
        self.slot_passes = self.busy_slot_passes = 0
        self._texts: list[SlotText | None] = [None] * cache.config.batch_size
        self._begun: list[tuple[SlotText, GeneratedToken]] = []
        self._ahead: BuiltPass | None = None
        compiled = CompiledStep(model, cache) if compiles else None
        self._builder = PassBuilder(model, self.slots, chunk_size, compiled)

    @property
    def shared_tokens(self) -> int:
        """Number of prompt tokens that were copied from another prompt."""
        return self._builder.shared_tokens

    @property
    def in_use(self) -> int:
        """Number of slots that hold an unfinished text."""
        return sum(text is not None for text in self._texts)

    @property
    def has_free_slot(self) -> bool:
        """Whether another text can begin."""
        return None in self._texts

    @property
    def capacity(self) -> int:
        """Number of tokens that a slot holds."""
        return self.slots.capacity

    def position(self, text: SlotText) -> int:
        """Return the number of cache positions that a text uses."""
        return self.slots.positions[text.slot]

    def begin(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        *,
        endings: Mapping[int, FinishDetail],
        max_tokens: int | None = None,
        guide: TokenGuide | None = None,
    ) -> SlotText:
        """Give a text a slot. The next passes compute its prompt.

        Args:
            prompt: Token ids, at least one and no more than a slot holds.
            sampler: Sampler of this text.
            endings: Tokens that end the text once they have been returned, and the reason for each.
            max_tokens: Maximum number of new tokens; default: until the slot is full.
            guide: Guide of this text; None to allow any token.
        """
        slot = self._texts.index(None)
        limit, limited_by = token_limit(max_tokens, self.slots.capacity - len(prompt))
        bounds = TextBounds(endings, limit, limited_by, guide)
        begun = bounds.take_forced(0)
        ids = [token.id for token in begun if token.finish is None]
        rope = self.model.rope
        if rope.periods(len(prompt) + len(ids)) is rope.periods(len(prompt)):
            # What the text must begin with is computed like the end of the prompt.
            sampler.note(ids)
            prompt, ids = [*prompt, *ids], []
        shareable = prompt if rope.periods(len(prompt)) is rope.periods(1) else ()
        text = SlotText(slot, prompt, shareable, sampler, bounds, tokens=len(begun), forced=ids)
        self._begun += [(text, token) for token in begun]
        if begun and begun[-1].finish is not None:
            text.is_over = True
            return text
        self._texts[slot] = text
        self._builder.add_prompt(text)
        return text

    def end(self, text: SlotText) -> None:
        """Free the slot of a text and discard what is being computed for it."""
        if not text.is_over:
            text.is_over = True
            self._texts[text.slot] = None
            self._builder.drop_prompt(text)

    def step(self) -> list[tuple[SlotText, GeneratedToken | MetalGenError]]:
        """Compute a pass. Return the tokens that it drew and those that must follow them.

        Returns:
            New tokens with their texts. First those that texts begun since the last call must begin with,
            even if `end` has ended the text since. Then, for each text that the pass drew for and that is not
            over, its tokens, or the error why there is none, which ends the text as a last token does. The
            next pass is then being computed.
        """
        current = self._ahead or self._launched(self._build())
        following = self._build()
        mx.eval(current.outputs)
        # For parts of prompts without a draw too: MLX copies a buffer that is in use before another write.
        mx.synchronize()
        current.release()
        self.slot_passes += len(self._texts)
        self.busy_slot_passes += sum(not text.is_over for text in (*current.fed, *current.prefilled))
        given: list[tuple[SlotText, GeneratedToken | MetalGenError]] = [*self._begun]
        self._begun = []
        for text, draw in current.draws:
            if text.is_over:
                continue
            token, status = read_draw(draw)
            if status == Status.UNCERTAIN:
                self._draw_again(text, draw, following)
            elif status == Status.NOT_FINITE:
                self.end(text)
                given.append((text, text.bounds.error or not_chosen(draw)))
            else:
                given += [(text, each) for each in self._tokens(text, draw, token)]
        self._ahead = None if following.is_empty else self._launched(following)
        return given

    def _launched(self, built: BuiltPass) -> BuiltPass:
        """Start to compute a pass. Meanwhile ask the guides, and draw what they had to be asked for."""
        if built.first:
            mx.eval(built.first)
            wait_for_release()
        # A text that is over needs no draw; one with forced tokens draws after these.
        asking = [(text, row) for text, row in built.undrawn if not text.is_over and not text.forced]
        for text, _ in asking:
            text.bounds.prepare()
        # Only now: once the pass after is built, the same arrays stand for what that one writes.
        mx.async_eval(built.outputs, self.slots.arrays)
        if asking:
            texts = [text for text, _ in asking]
            logits = mx.concatenate([row for _, row in asking])
            draws = draw_together(logits, *draw_places(texts), [text.bounds.allowed() for text in texts])
            for text, draw in zip(texts, draws, strict=True):
                built.add_draw(text, draw)
            mx.async_eval([result for draw in draws for result in draw.results])
        return built

    def _tokens(self, text: SlotText, draw: Draw, token: int) -> list[GeneratedToken]:
        """Return the token that was drawn and those that must follow it."""
        tokens = [GeneratedToken(token, draw, text.bounds.finish(token, draw.index))]
        if tokens[0].finish is None:
            tokens += text.take_forced()
        if tokens[-1].finish is not None:
            self.end(text)
        return tokens

    def _draw_again(self, text: SlotText, missed: Draw, following: BuiltPass) -> None:
        """Search the whole vocabulary for a token, and let the text continue one pass later."""
        if text in following.fed:
            self.slots.take_back(text.slot, 1)
            text.sampler.take_back(1)
        following.replace_draw(text, text.sampler.redraw(missed))

    def _build(self) -> BuiltPass:
        """Build the pass that follows those already built."""
        return self._builder.build(self._texts)
