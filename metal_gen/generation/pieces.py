"""What a generation gives: pieces of text as they come, whole texts, counts and times."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.engine.stopping import FinishDetail, FinishReason
from metal_gen.sampling.logprobs import TokenLogprobs

# On a CPU the second token is computed before the first is handed on, and both come at once.
FEWEST_TIMED = 3


@dataclass(frozen=True)
class Statistics:
    """Counts and times of one text, up to now.

    Attributes:
        prompt_tokens: Tokens of the prompt, template included.
        computed_tokens: Those of them that were computed for this text alone: all but what the cache held
            before; none of a second sample's, nor in a batch.
        completion_tokens: New tokens, the end token included.
        ttft_s: From the start of prefill to the first new token; of a second sample, from its own
            start.
        prefill_tps: Computed tokens per second of `ttft_s`.
        decode_tps: (n - 1) / (t_last - t_first); 0 before the third token.
        seed: What the draws came from.
        cache_tokens: Positions of the cache in use.
        peak_memory_bytes: Most that MLX has had allocated in this process.
    """

    prompt_tokens: int
    computed_tokens: int
    completion_tokens: int
    ttft_s: float
    prefill_tps: float
    decode_tps: float
    seed: int
    cache_tokens: int
    peak_memory_bytes: int


@dataclass(frozen=True)
class Piece:
    """A part of a text, as it comes.

    Attributes:
        text: Final characters; may be empty while a character or a stop string is incomplete.
        token_id: The token that completed it.
        is_thinking: The text belongs to the model's thinking, not to its answer.
        finish: Set on the last piece of a text: why it ends.
        stop_text: The stop string that ended it.
        logprobs: Of the token, where they were asked for.
        sample: Which of several texts for one prompt, counted from 0.
        statistics: Up to this piece.
    """

    text: str
    token_id: int
    is_thinking: bool
    finish: FinishDetail | None
    stop_text: str | None
    logprobs: TokenLogprobs | None
    sample: int
    statistics: Statistics

    @property
    def finish_reason(self) -> FinishReason | None:
        """`finish` in the usual words."""
        return None if self.finish is None else self.finish.reason


@dataclass(frozen=True)
class Generation:
    """A whole text.

    Attributes:
        text: The answer.
        thinking: What the model thought before it, where it does.
        token_ids: All new tokens, the end token included.
        finish: Why it ended.
        stop_text: The stop string that ended it.
        logprobs: Of each token, where they were asked for.
        statistics: Of the whole.
    """

    text: str
    thinking: str
    token_ids: list[int]
    finish: FinishDetail
    stop_text: str | None
    logprobs: list[TokenLogprobs]
    statistics: Statistics

    @property
    def finish_reason(self) -> FinishReason:
        """`finish` in the usual words."""
        return self.finish.reason


def join(pieces: Sequence[Piece]) -> Generation:
    """Put the pieces of one text together; without a last one it was cancelled."""
    last = pieces[-1]
    return Generation(
        text="".join(piece.text for piece in pieces if not piece.is_thinking),
        thinking="".join(piece.text for piece in pieces if piece.is_thinking),
        token_ids=[piece.token_id for piece in pieces],
        finish=last.finish or FinishDetail.CANCELLED,
        stop_text=last.stop_text,
        logprobs=[piece.logprobs for piece in pieces if piece.logprobs is not None],
        statistics=last.statistics,
    )


class Clock:
    """Counts tokens and notes when the first and the last came."""

    def __init__(self, *, prompt_tokens: int, computed_tokens: int, seed: int) -> None:
        """Start now; the arguments are as on `Statistics`."""
        self.prompt_tokens = prompt_tokens
        self.computed_tokens = computed_tokens
        self.seed = seed
        self.count = 0
        self.start_s = self.first_s = self.last_s = time.perf_counter()

    def tick(self) -> None:
        """Count a token."""
        self.last_s = time.perf_counter()
        if self.count == 0:
            self.first_s = self.last_s
        self.count += 1

    def statistics(self, cache_tokens: int) -> Statistics:
        """What has been counted."""
        ttft_s = self.first_s - self.start_s
        decode_s = self.last_s - self.first_s
        return Statistics(
            prompt_tokens=self.prompt_tokens,
            computed_tokens=self.computed_tokens,
            completion_tokens=self.count,
            ttft_s=ttft_s,
            prefill_tps=self.computed_tokens / ttft_s if ttft_s else 0.0,
            decode_tps=(self.count - 1) / decode_s if decode_s and self.count >= FEWEST_TIMED else 0.0,
            seed=self.seed,
            cache_tokens=cache_tokens,
            peak_memory_bytes=mx.get_peak_memory(),
        )
