"""The decode loop of a text with a guide: no token is read before the guide has allowed it.

The forward pass of a token does not depend on the guide. It is computed while the guide finds the tokens that
may follow; the draw waits, unless the same tokens are allowed as the last times in the same place. Such a
draw is made together with its pass, and again if others turn out to be allowed. Forced tokens are added to
the cache in one pass.

Where a kernel writes to the cache, the device receives work before the token before is read, as in
`generator`: pass and draw if the same has come often, and else a part of the pass, unless forced tokens are
likely.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import mlx.core as mx

from metal_gen.device.extra_memory import wait_for_release
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.expectations import same_tokens
from metal_gen.engine.generator import GeneratedToken, not_chosen, read_draw
from metal_gen.engine.guide import TextBounds, TokenGuide
from metal_gen.engine.last_step import LastStep
from metal_gen.engine.stopping import FinishDetail, token_limit
from metal_gen.sampling.allowed import Allowed
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
    steps = _GuidedSteps(decoder, sampler, guide)
    following: _Following | None = _Following(logits)
    items = bounds.take_forced(0)
    if items:
        following = steps.force([], items)
    count = len(items)
    while True:
        draw = None
        if following is not None:
            draw = steps.draw(following, count)
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
        if not decoder.hands_over_early:
            steps.keep()
            wait_for_release()


class _Following(NamedTuple):
    """The step after a token.

    Attributes:
        logits: Its logits, (1, V), which may not be computed yet; None if the step is not built yet.
        draw: The draw from the tokens that are expected to be allowed.
        early: What is handed over before the token is read: nothing, a part of the step, or all and the draw.
        is_whole: Whether it is all.
    """

    logits: mx.array | None
    draw: Draw | None = None
    early: Sequence[mx.array] = ()
    is_whole: bool = False


class _GuidedSteps:
    """The steps of one text, of which the last one can be taken back, and their draws."""

    def __init__(self, decoder: Decoder, sampler: Sampler, guide: TokenGuide) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._guide = guide
        self._last = LastStep(decoder)
        # The draw that the next one follows; None if forced tokens come between them.
        self._before: Draw | None = None
        # Whether the last draw is from expected tokens, and has been handed over with them early.
        self._is_expected = self._was_early = False
        # Whether the step after the last draw is built, and has been handed over.
        self._is_built = self._is_running = False

    def draw(self, following: _Following, index: int) -> Draw:
        """Hand over a step and a draw from it, once the guide knows all tokens before."""
        logits, draw = following.logits, following.draw
        self._is_expected, self._was_early = draw is not None, following.is_whole and self._is_running
        if draw is not None and self._was_early:
            return draw
        if logits is None:
            assert self._before is not None
            logits = self._decoder.step(self._before.token)
        # The guide may look for its answer in another thread while this one hands the pass over, for which
        # a host may need longer than the device to compute it. Not earlier: as long as this thread holds
        # Python's lock, the other one would only wait for it.
        self._guide.prepare()
        if draw is not None:
            mx.async_eval(draw.results)
            return draw
        mx.async_eval(logits)
        return self._drawn(logits, index, self._ask())

    def read(self, draw: Draw, *, is_last: bool) -> tuple[int | None, Draw, _Following | None]:
        """Build the step after a draw, then read the draw.

        Returns:
            The token, or None if no token could be chosen; its draw; and the step after it, or None if it is
            the last.
        """
        # The guide is asked while a step is handed over: the last one or, if that was early, the next one. At
        # other times Python's lock keeps another thread from finding the answer.
        if not self._was_early:
            draw = self._checked(draw)
        following = self._follow(draw, is_last=is_last)
        if self._was_early:
            self._guide.prepare()
        if following is not None and following.early:
            mx.async_eval(following.early)
            self._is_running = True
        if (checked := self._checked(draw, is_accepted=True)) is not draw:
            draw = checked
            following = self._follow_again(draw, is_last=is_last)
        token, status = read_draw(draw)
        if status == Status.UNCERTAIN:
            self._sampler.take_back(1)
            draw = self._sampler.redraw(draw)
            following = self._follow_again(draw, is_last=is_last)
            token, status = read_draw(draw)
        self._before = draw
        return None if status == Status.NOT_FINITE else token, draw, following

    def take_back(self) -> None:
        """Drop the step after the last draw, if it is built."""
        if self._is_built:
            self._last.drop(is_running=self._is_running)
        self._is_built = self._is_running = False

    def keep(self) -> None:
        """Keep the last step."""
        self._last.keep()

    def force(self, known: Sequence[int], items: Sequence[GeneratedToken]) -> _Following | None:
        """Add forced tokens to the cache, after known tokens that it does not hold yet.

        Returns:
            The step of the last one, not yet computed; None if the text is over.
        """
        if self._before is not None:
            self._decoder.expectations.note(self._before.allowed, None, is_forced=True)
            self._before = None
        ids = [item.id for item in items]
        self._sampler.note(ids)
        if items[-1].finish is not None:
            return None
        self.keep()
        return _Following(self._decoder.extend_in_passes([*known, *ids]))

    def _ask(self) -> Allowed | None:
        """Ask the guide which tokens may come next, and remember them as what followed the draw before."""
        allowed = self._guide.allowed()
        if self._before is not None:
            self._decoder.expectations.note(self._before.allowed, allowed)
        return allowed

    def _checked(self, draw: Draw, *, is_accepted: bool = False) -> Draw:
        """Return the draw, made again if it is from expected tokens and the guide allows others.

        Args:
            draw: The draw.
            is_accepted: Whether the sampler has it, and takes it back first: a token that is not in the text
                has no penalty.
        """
        if not self._is_expected:
            return draw
        self._is_expected = False
        allowed = self._ask()
        if same_tokens(allowed, draw.allowed):
            return draw
        if is_accepted:
            self._sampler.take_back(1)
        return self._drawn(draw.logits, draw.index, allowed)

    def _drawn(self, logits: mx.array, index: int, allowed: Allowed | None) -> Draw:
        draw = self._decoder.draw(logits, self._sampler, index, allowed)
        mx.async_eval(draw.results)
        return draw

    def _follow(self, draw: Draw, *, is_last: bool) -> _Following | None:
        """Add a draw, computed or not, to the text, and build the step after it."""
        self._sampler.accept(draw)
        self._is_built = self._is_running = False
        if is_last:
            return None
        expectations = self._decoder.expectations
        expected = expectations.after(draw.allowed)
        if expected is not None and expected.is_forced:
            return _Following(None)
        self._last.begin()
        self._is_built = True
        decoder, sampler = self._decoder, self._sampler
        is_early = decoder.hands_over_early
        if expected is not None and (expected.is_sure or not is_early):
            drawn = decoder.draw_next(draw.token, sampler, draw.index + 1, expected.allowed)
            return _Following(drawn.logits, drawn, drawn.results if is_early else [], is_whole=is_early)
        step = decoder.step_in_parts(draw.token)
        expected_draw = None
        if expected is not None:
            expected_draw = decoder.draw(step.logits, sampler, draw.index + 1, expected.allowed)
        if not is_early or step.first_part is None or expectations.may_be_forced(draw.allowed):
            return _Following(step.logits, expected_draw)
        return _Following(step.logits, expected_draw, early=[step.first_part])

    def _follow_again(self, draw: Draw, *, is_last: bool) -> _Following | None:
        """Build the step after a draw in place of one that the sampler has taken back."""
        self.take_back()
        return self._follow(draw, is_last=is_last)
