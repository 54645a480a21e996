"""Why a generation ends, and how many tokens it may have."""

from enum import StrEnum

from metal_gen.errors import DoesNotFitError


class FinishReason(StrEnum):
    """Why there is no more text, in the words of the usual APIs."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class FinishDetail(StrEnum):
    """Why there is no more text, exactly."""

    EOS = "eos"
    STOP_TOKEN = "stop_token"
    STOP_TEXT = "stop_text"
    MAX_TOKENS = "max_tokens"
    CACHE_FULL = "cache_full"
    CANCELLED = "cancelled"

    @property
    def reason(self) -> FinishReason:
        """The usual word for it."""
        if self in (FinishDetail.MAX_TOKENS, FinishDetail.CACHE_FULL):
            return FinishReason.LENGTH
        return FinishReason.CANCELLED if self is FinishDetail.CANCELLED else FinishReason.STOP


def require_capacity(prompt_tokens: int, max_tokens: int | None, max_seq_len: int) -> None:
    """Refuse a generation that the cache cannot hold, before any work is done.

    The last new token is never put into the cache, so prompt + new - 1 positions are needed.

    Raises:
        DoesNotFitError: Naming the numbers and both remedies.
    """
    needed = prompt_tokens + (max_tokens or 1) - 1
    if needed <= max_seq_len:
        return
    what = f"the prompt of {prompt_tokens} tokens does not fit"
    if max_tokens is not None:
        what = f"the prompt of {prompt_tokens} tokens and {max_tokens} new ones do not fit"
    remedy = f"raise max_seq_len under [cache] (--max-seq-len {needed})"
    room = max_seq_len - prompt_tokens + 1
    other = f"ask for at most {room} with --max-tokens" if room > 0 else "shorten the prompt"
    raise DoesNotFitError(
        f"{what} the cache: {needed} positions are needed and max_seq_len is {max_seq_len}",
        f"{remedy}, or {other}",
    )


def token_limit(max_tokens: int | None, free_positions: int) -> tuple[int, FinishDetail]:
    """New tokens that can follow a prompt, given the positions it left free, and what limits them."""
    most = free_positions + 1
    if max_tokens is None or max_tokens > most:
        return most, FinishDetail.CACHE_FULL
    return max_tokens, FinishDetail.MAX_TOKENS
