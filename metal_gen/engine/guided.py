"""The decode loop of a text with a guide: no token is drawn before the guide has allowed it.

The forward pass of a token does not depend on the guide. It is computed while the guide finds the tokens that
may follow; only the draw waits. Forced tokens are added to the cache in one pass.
"""

from collections.abc import Iterator, Mapping, Sequence

import mlx.core as mx

from metal_gen.device.extra_memory import wait_for_release
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import GeneratedToken, not_chosen, read_draw
from metal_gen.engine.guide import TextBounds, TokenGuide
from metal_gen.engine.last_step import LastStep
from metal_gen.engine.stopping import FinishDetail, token_limit
from metal_gen.sampling.draw_rule import Draw, Status
from metal_gen.sampling.sampler import Sampler


def generate_guided_tokens(
    decoder: Decoder,
    logits: mx.array,
    sampler: Sampler,
    guide: TokenGuide,
    *,
    endings: Mapping[int, FinishDetail],
    max_tokens: int | None = None,
) -> Iterator[GeneratedToken]:
    """Yield new tokens after a prompt, like `generate_tokens`, as the guide allows.

    The cache may hold more tokens than were yielded: forced tokens are added together.

    Args:
        decoder: Decoder whose cache holds the prompt.
        logits: Logits of the token after the prompt, (1, V).
        sampler: Sampler of this text.
        guide: Guide of this text.
        endings: Tokens that end the text once they have been yielded, and the reason for each.
        max_tokens: Maximum number of tokens to yield; default: until the cache is full.

    Raises:
        LogitsError: The logits of a step leave no token to choose; the message names the step.
        MetalGenError: The guide has failed.
    """
    limit, limited_by = token_limit(max_tokens, decoder.cache.remaining)
    bounds = TextBounds(endings, limit, limited_by, guide)
    steps = _GuidedSteps(decoder, sampler)
    following: mx.array | None = logits
    items = bounds.take_forced(0)
    if items:
        following = steps.force([], items)
    count = len(items)
    while True:
        draw = None
        if following is not None:
            # A host may need longer to hand a pass over than the device to compute it.
            guide.prepare()
            mx.async_eval(following)
            draw = decoder.draw(following, sampler, count, guide.allowed())
            mx.async_eval(draw.results)
        yield from items
        if draw is None:
            return
        token, draw, following = steps.read(draw, is_last=count + 1 == limit)
        if token is None:
            raise bounds.error or not_chosen(draw)
        items = [GeneratedToken(token, draw, bounds.finish(token, count))]
        if items[0].finish is not None:
            following = None
        elif forced := bounds.take_forced(count + 1):
            # What holds the step that is dropped holds the cache too, and MLX would copy it.
            following = None
            steps.take_back()
            following = steps.force([token], forced)
            items += forced
        count += len(items)
        steps.keep()
        if not decoder.hands_over_early:
            wait_for_release()


class _GuidedSteps:
    """The steps of one text. The last one can be taken back."""

    def __init__(self, decoder: Decoder, sampler: Sampler) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._last = LastStep(decoder)

    def read(self, draw: Draw, *, is_last: bool) -> tuple[int | None, Draw, mx.array | None]:
        """Build the step after a draw, then read the draw.

        Returns:
            The token, or None if no token could be chosen; its draw; and the logits of the token after it,
            not yet computed, or None if it is the last.
        """
        self._last.begin()
        following = self._follow(draw, is_last=is_last)
        token, status = read_draw(draw)
        if status == Status.UNCERTAIN:
            if not is_last:
                self.take_back()
            self._sampler.take_back(1)
            draw = self._sampler.redraw(draw)
            following = self._follow(draw, is_last=is_last)
            token, status = read_draw(draw)
        return None if status == Status.NOT_FINITE else token, draw, following

    def take_back(self) -> None:
        """Drop the last step, which has not been computed."""
        self._last.drop()

    def keep(self) -> None:
        """Keep the last step."""
        self._last.keep()

    def force(self, known: Sequence[int], items: Sequence[GeneratedToken]) -> mx.array | None:
        """Add forced tokens to the cache, after known tokens that it does not hold yet.

        Returns:
            Logits of the token that follows, (1, V), not yet computed; None if the text is over.
        """
        ids = [item.id for item in items]
        self._sampler.note(ids)
        if items[-1].finish is not None:
            return None
        self.keep()
        return self._decoder.extend_in_passes([*known, *ids])

    def _follow(self, draw: Draw, *, is_last: bool) -> mx.array | None:
        self._sampler.accept(draw)
        return None if is_last else self._decoder.step(draw.token)
