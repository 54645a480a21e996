"""The loop: sample and decode, one step ahead of the reader."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.engine.decoder import Decoder
from metal_gen.engine.stopping import FinishDetail, token_limit
from metal_gen.sampling.sampler import Draw, LogitsError, Sampler, Status


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

    The step after a token is already being computed when the token is yielded; reading a token is
    the only time the host waits for the device.

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
    draw = _accept(sampler, sampler.draw(logits, 0))
    for index in range(limit):
        is_last = index + 1 == limit
        following = None if is_last else _accept(sampler, decoder.draw_next(draw.token, sampler, index + 1))
        token, status = _read(draw)
        if status == Status.UNCERTAIN:
            # Go back to before this draw, look at the whole vocabulary, and go on from there.
            sampler.retract(1 if is_last else 2)
            decoder.cache.rewind(0 if is_last else 1)
            draw = _accept(sampler, sampler.redraw(draw))
            following = (
                None if is_last else _accept(sampler, decoder.draw_next(draw.token, sampler, index + 1))
            )
            token, status = _read(draw)
        if status == Status.NOT_FINITE:
            raise LogitsError(
                f"no token can be chosen at new token {index + 1}: the logits are not finite",
                "the checkpoint may be damaged, or every token banned; try float32 for model and cache",
            )
        finish = endings.get(token, limited_by if is_last else None)
        yield GeneratedToken(token, draw, finish)
        if finish is not None or following is None:
            return
        draw = following


def _accept(sampler: Sampler, draw: Draw) -> Draw:
    sampler.accept(draw)
    mx.async_eval(draw.results)
    return draw


def _read(draw: Draw) -> tuple[int, int]:
    """Wait for a draw and bring its token's id and its status to the host."""
    token, status = draw.outcome.tolist()  # type: ignore[misc]
    return int(token), int(status)  # type: ignore[arg-type]
