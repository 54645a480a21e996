"""One text at a time with guesses of its next tokens, in place of the slots of a batch."""

from collections.abc import Iterator, Mapping, Sequence

from metal_gen.engine.cached_text import CachedText
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import GeneratedToken
from metal_gen.engine.guide import TextBounds, TokenGuide
from metal_gen.engine.slots.slot_text import SlotText
from metal_gen.engine.stopping import FinishDetail, token_limit
from metal_gen.errors import MetalGenError
from metal_gen.sampling.sampler import Sampler
from metal_gen.speculation.generator import generate_with_guesses
from metal_gen.speculation.speculation import Speculation


class GuessingSlot:
    """Implements `TextSlots`.

    Args:
        decoder: Decoder of the model.
        speculation: Guesses of the model's texts.

    Attributes:
        slot_passes: Number of tokens, and of steps without a text.
        busy_slot_passes: Number of tokens.
    """

    def __init__(self, decoder: Decoder, speculation: Speculation) -> None:
        self.model = decoder.model
        self.slot_passes = self.busy_slot_passes = 0
        self._decoder = decoder
        self._speculation = speculation
        self._cached = CachedText(decoder)
        self._text: SlotText | None = None
        self._tokens: Iterator[GeneratedToken] = iter(())

    @property
    def in_use(self) -> int:
        """Number of unfinished texts."""
        return int(self._text is not None)

    @property
    def has_free_slot(self) -> bool:
        """Whether another text can begin."""
        return self._text is None

    @property
    def capacity(self) -> int:
        """Number of tokens that the cache holds."""
        return self._decoder.cache.config.max_seq_len

    def position(self, text: SlotText) -> int:
        """Return the number of cache positions in use."""
        return self._decoder.cache.position

    def begin(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        *,
        endings: Mapping[int, FinishDetail],
        max_tokens: int | None = None,
        guide: TokenGuide | None = None,
    ) -> SlotText:
        """Begin a text, whose prompt the next step computes; see `TextSlots`."""
        limit, limited_by = token_limit(max_tokens, self.capacity - len(prompt))
        bounds = TextBounds(endings, limit, limited_by, guide)
        self._text = SlotText(0, prompt, (), sampler, bounds)
        self._tokens = self._generated(self._text, max_tokens)
        return self._text

    def end(self, text: SlotText) -> None:
        """Leave a text."""
        if not text.is_over:
            text.is_over = True
            self._text, self._tokens = None, iter(())
            self._speculation.end_text()

    def step(self) -> list[tuple[SlotText, GeneratedToken | MetalGenError]]:
        """Return the next token of the text, or the error why there is none, which ends it."""
        text = self._text
        self.slot_passes += 1
        if text is None:
            return []
        self.busy_slot_passes += 1
        token: GeneratedToken | MetalGenError
        try:
            token = next(self._tokens)
        except MetalGenError as error:
            token = error
        if isinstance(token, MetalGenError) or token.finish is not None:
            self.end(text)
        return [(text, token)]

    def _generated(self, text: SlotText, max_tokens: int | None) -> Iterator[GeneratedToken]:
        """Compute the prompt, and yield the tokens after it."""
        kept, speculation = self._cached.begin(text.prompt), self._speculation
        speculation.begin(text.prompt, kept)
        logits = self._cached.prefill(on_hidden=speculation.takes_hidden)
        speculation.begin_text()
        for token in generate_with_guesses(
            self._decoder,
            logits,
            text.sampler,
            speculation,
            endings=text.bounds.endings,
            max_tokens=max_tokens,
            guide=text.bounds.guide,
        ):
            self._cached.add(token.id)
            yield token
