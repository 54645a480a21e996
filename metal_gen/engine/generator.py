"""The loop: sample and decode, one step ahead of the reader.

The graph of a step is built while the step before it is computed, but handed to the device only when
that one has ended. Handed over sooner, it would find the cache in use, and MLX would copy what it is
to write to: the whole cache, at every step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.engine.decoder import Decoder
from metal_gen.engine.stopping import FinishDetail, token_limit
from metal_gen.sampling.sampler import Draw, LogitsError, Sampler, Status, no_token


@dataclass(frozen=True)
class GeneratedToken:
    """One new token.

    Attributes:
        id: In the vocabulary.
        draw: How it was drawn.
        finish: Set on the last token.
    """

    id: int
    draw: Draw
    finish: FinishDetail | None


def generate_tokens(
    decoder: Decoder,
    logits: mx.array,
    sampler: Sampler,
    *,
    endings: Mapping[int, FinishDetail],
    max_tokens: int | None = None,
) -> Iterator[GeneratedToken]:
    """Yield new tokens after a prompt.

    The step after a token is already being computed when the token is yielded.

    Args:
        decoder: Its cache holds the prompt.
        logits: (1, V) of the token after the prompt.
        sampler: Of this text.
        endings: Tokens that end the text when they have been yielded, and what to call that.
        max_tokens: Most tokens to yield; by default what the cache has room for.

    Raises:
        LogitsError: The logits of a step leave no token to choose; it is named.
    """
    limit, limited_by = token_limit(max_tokens, decoder.cache.remaining)
    draw = sampler.draw(logits, 0)
    mx.async_eval(draw.results)
    for index in range(limit):
        is_last = index + 1 == limit
        following = _follow(draw, decoder, sampler, is_last=is_last)
        token, status = read_draw(draw)
        if status == Status.UNCERTAIN:
            # Go back to before this draw, look at the whole vocabulary, and go on from there.
            sampler.retract(1)
            decoder.cache.rewind(0 if is_last else 1)
            draw = sampler.redraw(draw)
            following = _follow(draw, decoder, sampler, is_last=is_last)
            token, status = read_draw(draw)
        if status == Status.NOT_FINITE:
            raise not_chosen(draw)
        if following is not None:
            mx.async_eval(following.results)
        finish = endings.get(token, limited_by if is_last else None)
        yield GeneratedToken(token, draw, finish)
        if finish is not None or following is None:
            return
        draw = following


def not_chosen(draw: Draw) -> LogitsError:
    """The error of a draw that gave no token, which it names."""
    return no_token(f"no token can be chosen at new token {draw.index + 1}", draw.logits)


def _follow(draw: Draw, decoder: Decoder, sampler: Sampler, *, is_last: bool) -> Draw | None:
    """Note a draw, computed or not, as part of the text, and build the step after it."""
    sampler.accept(draw)
    return None if is_last else decoder.draw_next(draw.token, sampler, draw.index + 1)


def read_draw(draw: Draw) -> tuple[int, int]:
    """Have a draw computed and bring its token's id and its status to the host."""
    token, status = draw.outcome.tolist()  # type: ignore[misc]
    return int(token), int(status)  # type: ignore[arg-type]
