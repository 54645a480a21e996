"""The loop: prefill, then sample and decode, one step ahead of the reader."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.engine.decoder import Decoder, PrefillProgress
from metal_gen.engine.stopping import FinishReason, token_limit

Sampler = Callable[[mx.array, int], mx.array]


@dataclass(frozen=True)
class GeneratedToken:
    """One new token.

    Attributes:
        id: In the vocabulary.
        finish_reason: Set on the last token: `stop` when it is an end token, else `length`.
    """

    id: int
    finish_reason: FinishReason | None


def generate_tokens(
    decoder: Decoder,
    prompt: Sequence[int],
    sampler: Sampler,
    *,
    eos_ids: Collection[int],
    max_tokens: int | None = None,
    on_prefill: PrefillProgress | None = None,
) -> Iterator[GeneratedToken]:
    """Yield new tokens after a prompt.

    The step after a token is already being computed when the token is yielded; reading the
    token's id is the only time the host waits for the device.

    Args:
        decoder: Its cache has room for the prompt.
        prompt: Token ids, at least one.
        sampler: Maps (1, V) logits and the index of the new token to its id, (1,).
        eos_ids: A token of these is yielded and ends the text.
        max_tokens: Most tokens to yield; by default what the cache has room for.
        on_prefill: Called with prompt tokens done and in all.
    """
    logits = decoder.prefill(prompt, on_prefill)
    limit = token_limit(max_tokens, decoder.cache.remaining)
    token = sampler(logits, 0)
    mx.async_eval(token)
    for index in range(limit):
        is_last = index + 1 == limit
        if not is_last:
            following = sampler(decoder.step(token), index + 1)
            mx.async_eval(following)
        token_id = _read(token)
        if token_id in eos_ids:
            yield GeneratedToken(token_id, FinishReason.STOP)
            return
        yield GeneratedToken(token_id, FinishReason.LENGTH if is_last else None)
        if not is_last:
            token = following


def _read(token: mx.array) -> int:
    """Wait for a token and bring its id to the host."""
    value = token.item()
    assert isinstance(value, int)
    return value
