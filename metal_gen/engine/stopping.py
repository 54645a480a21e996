"""Why a generation ends, and how many tokens it may produce."""

from enum import StrEnum

from metal_gen.errors import DoesNotFitError

# Room for an answer of usual length, and the least room that is worth starting with.
ANSWER_TOKENS = 4096
LEAST_ANSWER_TOKENS = 64


class FinishReason(StrEnum):
    """Why a text ends, in the words of common APIs."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class FinishDetail(StrEnum):
    """The exact reason why a text ends."""

    EOS = "eos"
    STOP_TOKEN = "stop_token"
    STOP_TEXT = "stop_text"
    GRAMMAR = "grammar"
    LOOP = "loop"
    MAX_TOKENS = "max_tokens"
    CACHE_FULL = "cache_full"
    CANCELLED = "cancelled"

    @property
    def reason(self) -> FinishReason:
        """The reason in the words of common APIs."""
        if self in (FinishDetail.MAX_TOKENS, FinishDetail.CACHE_FULL):
            return FinishReason.LENGTH
        return FinishReason.CANCELLED if self is FinishDetail.CANCELLED else FinishReason.STOP


def require_capacity(
    prompt_tokens: int,
    max_tokens: int | None,
    max_seq_len: int,
    *,
    most: int | None = None,
    reason: str = "",
) -> None:
    """Refuse a generation that the cache cannot hold, before any work is done.

    The last new token never enters the cache, so prompt + new - 1 positions are needed.

    Args:
        prompt_tokens: Number of prompt tokens.
        max_tokens: Maximum number of new tokens; None if only the cache limits them.
        max_seq_len: Capacity of the cache.
        most: Largest capacity to propose; None if unknown.
        reason: Where the capacity comes from.

    Raises:
        DoesNotFitError: The cache is too small. The error names the numbers and the remedies that leave
            room for an answer.
    """
    needed = prompt_tokens + (max_tokens or 1) - 1
    if needed <= max_seq_len:
        return
    what = f"the prompt of {prompt_tokens} tokens does not fit"
    if max_tokens is not None:
        what = f"the prompt of {prompt_tokens} tokens and {max_tokens} new ones do not fit"
    remedies = []
    if larger := larger_capacity(prompt_tokens, max_tokens, most):
        remedies.append(f"raise max_seq_len under [cache] (--max-seq-len {larger})")
    room = max_seq_len - prompt_tokens + 1
    remedies.append(f"ask for at most {room} with --max-tokens" if room > 0 else "shorten the prompt")
    if not larger:
        remedies.append("use another model")
    raise DoesNotFitError(
        f"{what} the cache: {needed} positions are needed and max_seq_len is {max_seq_len}"
        + (f" ({reason})" if reason else ""),
        ", or ".join(remedies),
    )


def larger_capacity(prompt_tokens: int, max_tokens: int | None, most: int | None = None) -> int | None:
    """Return a capacity for a prompt and an answer, or None if `most` is too small for both."""
    if max_tokens is not None:
        least = wanted = prompt_tokens + max_tokens - 1
    else:
        least, wanted = prompt_tokens + LEAST_ANSWER_TOKENS, prompt_tokens + ANSWER_TOKENS
    larger = wanted if most is None else min(wanted, most)
    return larger if larger >= least else None


def token_limit(max_tokens: int | None, free_positions: int) -> tuple[int, FinishDetail]:
    """Return the limit on new tokens after a prompt, and the reason for it, given the free positions."""
    most = free_positions + 1
    if max_tokens is None or max_tokens > most:
        return most, FinishDetail.CACHE_FULL
    return max_tokens, FinishDetail.MAX_TOKENS
