"""The generation loop: sample and decode, one step ahead of the reader.

The graph of a step is built while the step before it runs. Where a kernel writes to the cache, the device
receives it at once. Elsewhere it has to wait until that step is done: the cache would still be in use, and
MLX would copy the whole cache at every step before it writes to it. Texts are the same either way.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from metal_gen.device.extra_memory import wait_for_release
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.stopping import FinishDetail, token_limit
from metal_gen.sampling.draw_rule import Draw, Status
from metal_gen.sampling.logits_error import LogitsError, no_token
from metal_gen.sampling.logprobs import LogprobArrays
from metal_gen.sampling.sampler import Sampler


@dataclass(frozen=True)
class GeneratedToken:
    """One new token.

    Attributes:
        id: Token id.
        draw: The draw that chose it; None if the token was forced.
        finish: Why the text ends with this token; None if it does not.
    """

    id: int
    draw: Draw | None
    finish: FinishDetail | None

    @property
    def logprobs(self) -> LogprobArrays | None:
        """Its log-probabilities, if requested."""
        return None if self.draw is None else self.draw.logprobs


def generate_tokens(
    decoder: Decoder,
    logits: mx.array,
    sampler: Sampler,
    *,
    endings: Mapping[int, FinishDetail],
    max_tokens: int | None = None,
) -> Iterator[GeneratedToken]:
    """Yield new tokens after a prompt.

    When a token is yielded, the step after it is already being computed.

    Args:
        decoder: Decoder whose cache holds the prompt.
        logits: Logits of the token after the prompt, (1, V).
        sampler: Sampler of this text.
        endings: Tokens that end the text once they have been yielded, and the reason for each.
        max_tokens: Maximum number of tokens to yield; default: until the cache is full.

    Raises:
        LogitsError: The logits of a step allow no token. The error names the step.
    """
    limit, limited_by = token_limit(max_tokens, decoder.cache.remaining)
    draw = sampler.draw(logits, 0)
    mx.async_eval(draw.results)
    for index in range(limit):
        is_last = index + 1 == limit
        following = _follow(draw, decoder, sampler, is_last=is_last)
        if following is not None and decoder.hands_over_early:
            mx.async_eval(following.results)
        token, status = read_draw(draw)
        if status == Status.UNCERTAIN:
            # Undo this draw, search the whole vocabulary, and continue from there.
            sampler.take_back(1)
            decoder.cache.take_back(0 if is_last else 1)
            draw = sampler.redraw(draw)
            following = _follow(draw, decoder, sampler, is_last=is_last)
            token, status = read_draw(draw)
        if status == Status.NOT_FINITE:
            raise not_chosen(draw)
        if following is not None:
            if not decoder.hands_over_early:
                wait_for_release()
            mx.async_eval(following.results)
        finish = endings.get(token, limited_by if is_last else None)
        yield GeneratedToken(token, draw, finish)
        if finish is not None or following is None:
            return
        draw = following


def not_chosen(draw: Draw) -> LogitsError:
    """Return the error for a draw that chose no token. It names the draw."""
    return no_token(f"no token can be chosen at new token {draw.index + 1}", draw.logits)


def _follow(draw: Draw, decoder: Decoder, sampler: Sampler, *, is_last: bool) -> Draw | None:
    """Add a draw, computed or not, to the text, and build the step after it."""
    sampler.accept(draw)
    return None if is_last else decoder.draw_next(draw.token, sampler, draw.index + 1)


def read_draw(draw: Draw) -> tuple[int, int]:
    """Wait for a draw, and return its token id and its status."""
    numbers: Any = draw.outcomes.tolist()
    return numbers[draw.row], numbers[draw.row + len(numbers) // 2]
