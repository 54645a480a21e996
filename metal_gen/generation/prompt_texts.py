"""Generates the texts that follow a prompt, one after another."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import mlx.core as mx

from metal_gen.config.settings import Settings
from metal_gen.engine.cached_text import CachedText
from metal_gen.engine.decoder import PrefillProgress
from metal_gen.engine.generator import GeneratedToken, generate_tokens
from metal_gen.engine.stopping import FinishReason
from metal_gen.errors import UsageError
from metal_gen.generation.guides.guide import TextGuide
from metal_gen.generation.guides.making import guide_for, require_room
from metal_gen.generation.loading import TextModel
from metal_gen.generation.pieces import Clock, Piece
from metal_gen.generation.strategy_settings import endings_from
from metal_gen.generation.text_assembly import TextAssembly
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.seed import choose_seed
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.text.encoded_prompt import Prompt

if TYPE_CHECKING:
    from metal_gen.generation.prefixes.reuse import PrefixReuse


@dataclass(frozen=True)
class _NoReuse:
    """What `PrefixReuse` is where the prefix cache is off."""

    kept: int
    stored_tokens: int = 0
    boundary: int = 0

    def advance(self) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def discard(self) -> None:
        """Do nothing."""


@dataclass
class PromptTexts:
    """One or several texts for a prompt.

    Args:
        model: Model whose cache has room for the prompt.
        prompt: The encoded prompt.
        settings: Settings with the number of texts, the seed, the endings and log-probabilities.
        strategy: How tokens are chosen.
        cached: The previous text, which the prompt may continue; None to compute the whole prompt.
    """

    model: TextModel
    prompt: Prompt
    settings: Settings
    strategy: SamplingStrategy
    cached: CachedText | None = None

    def __post_init__(self) -> None:
        checkpoint = self.model.checkpoint
        self.seed = choose_seed() if self.settings.seed is None else self.settings.seed
        self.endings = endings_from(self.settings, checkpoint.tokenizer, checkpoint.eos_ids)
        require_room(self.model.plan, self.settings)
        # Made now, so that it is refused before anything is computed; each text has its own.
        self._next_guide = self._new_guide()

    def _new_guide(self) -> TextGuide | None:
        return guide_for(self.model.checkpoint, self.prompt, self.settings)

    def pieces(self, on_prefill: PrefillProgress | None) -> Generator[Piece, None, None]:
        """Compute the new part of the prompt once, and generate the texts from it."""
        cached = self.cached or CachedText(self.model.decoder)
        start_s = time.perf_counter()
        kept = cached.begin(self.prompt.ids)
        reuse = self._reuse(cached, kept)
        speculation, on_hidden = self.model.speculation, None
        if speculation is not None:
            speculation.begin(self.prompt.ids, reuse.kept)
            on_hidden = speculation.takes_hidden
        clock = self._clock(
            computed_tokens=len(self.prompt.ids) - reuse.kept, stored_tokens=reuse.stored_tokens
        )
        clock.start_s = start_s
        logits = cached.prefill(on_prefill, boundary=reuse.boundary, on_hidden=on_hidden)
        try:
            for sample in range(self.settings.samples):
                _require_cache(cached)
                cached.take_back_to_prompt()
                for piece in self._text(cached, logits, sample, clock, self._next_guide):
                    yield piece
                    reuse.advance()
                self._next_guide = self._new_guide()
                clock = self._clock(computed_tokens=0)
                if speculation is not None:
                    speculation.end_text()
            reuse.finish()
        finally:
            reuse.discard()

    def _reuse(self, cached: CachedText, kept: int) -> "PrefixReuse | _NoReuse":
        if self.model.prefixes is None:
            return _NoReuse(kept)
        from metal_gen.generation.prefixes.reuse import PrefixReuse

        return PrefixReuse(self.model.prefixes, self.prompt, cached, self.model.decoder.cache, kept)

    def _clock(self, *, computed_tokens: int, stored_tokens: int = 0) -> Clock:
        return Clock(
            prompt_tokens=len(self.prompt.ids),
            computed_tokens=computed_tokens,
            stored_tokens=stored_tokens,
            seed=self.seed,
        )

    def _text(
        self, cached: CachedText, logits: mx.array, sample: int, clock: Clock, guide: TextGuide | None
    ) -> Generator[Piece, None, None]:
        checkpoint, cache = self.model.checkpoint, self.model.decoder.cache
        sampler = Sampler(
            self.strategy,
            RandomKeys(self.seed, sample),
            prompt=self.prompt.ids,
            capacity=cache.config.max_seq_len,
            ending_ids=self.endings,
            logprobs=self.settings.logprobs,
        )
        assembly = TextAssembly(checkpoint.tokenizer, self.prompt, self.settings, sample, clock, guide)
        generate: Callable[..., Iterator[GeneratedToken]] = generate_tokens
        if (speculation := self.model.speculation) is not None:
            from metal_gen.speculation.generator import generate_with_guesses

            speculation.begin_text()
            clock.speculation = speculation.counts
            generate = partial(generate_with_guesses, speculation=speculation, guide=guide)
        elif guide is not None:
            from metal_gen.engine.guided import generate_guided_tokens

            generate = partial(generate_guided_tokens, guide=guide)
        tokens = generate(
            self.model.decoder, logits, sampler, endings=self.endings, max_tokens=self.settings.max_tokens
        )
        for length, token in enumerate(_while_in_cache(cached, tokens), len(self.prompt.ids) + 1):
            cached.add(token.id)
            piece = assembly.add(token, _cache_tokens(token, length, cache.position))
            yield piece
            if piece.finish:
                return


def _cache_tokens(token: GeneratedToken, length: int, position: int) -> int:
    """Return how many tokens the cache holds for a text up to a token, with guesses or without.

    Without guesses, a step adds each drawn token before it is known to end the text. With them, a pass may
    have added guesses after the token, which a stop string cuts off.

    Args:
        token: The last token.
        length: Number of tokens of the text, with the prompt.
        position: Position of the cache.
    """
    ends = token.finish is not None and token.finish.reason is FinishReason.STOP
    return length if ends and token.draw is not None else min(position, length)


def _require_cache(cached: CachedText) -> None:
    if not cached.has_the_cache:
        raise UsageError("another text has started with this model", "finish one text before the next")


def _while_in_cache(cached: CachedText, tokens: Iterator[GeneratedToken]) -> Iterator[GeneratedToken]:
    """Yield the same tokens, but stop before computing one after another text has taken the cache."""
    while (token := next(tokens, None)) is not None:
        yield token
        _require_cache(cached)
