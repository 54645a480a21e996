"""What a generation gives: pieces of text as they come, whole texts, counts and times."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.engine.stopping import FinishDetail, FinishReason
from metal_gen.errors import NoAnswerError
from metal_gen.sampling.logprobs import TokenLogprobs

# On a CPU the second token is computed before the first is handed on, and both come at once.
FEWEST_TIMED = 3
# What gives a text more room, by what has ended it.
MORE_ROOM = {FinishDetail.MAX_TOKENS: "--max-tokens", FinishDetail.CACHE_FULL: "--max-seq-len"}


@dataclass(frozen=True)
class Statistics:
    """Counts and times of one text, up to now.

    Attributes:
        prompt_tokens: Tokens of the prompt, template included.
        computed_tokens: Those of them that were computed for this text alone: all but what the cache held
            before; none of a second sample's, nor in a batch.
        completion_tokens: New tokens, the end token included.
        thinking_tokens: Those of them that belong to the model's thinking.
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
    thinking_tokens: int
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

    @property
    def ending(self) -> str:
        """Why a text that has no more pieces ended; see `describe_ending`."""
        return describe_ending(self.finish or FinishDetail.CANCELLED, self.stop_text)


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
        ends_in_thinking: The last token belongs to the model's thinking.
    """

    text: str
    thinking: str
    token_ids: list[int]
    finish: FinishDetail
    stop_text: str | None
    logprobs: list[TokenLogprobs]
    statistics: Statistics
    ends_in_thinking: bool = False

    @property
    def finish_reason(self) -> FinishReason:
        """`finish` in the usual words."""
        return self.finish.reason

    @property
    def ending(self) -> str:
        """Why the text ended; see `describe_ending`."""
        return describe_ending(self.finish, self.stop_text)

    @property
    def missing_answer(self) -> NoAnswerError | None:
        """Why there is no answer, where the model has thought and then said nothing."""
        if self.text.strip() or not (self.thinking or self.ends_in_thinking):
            return None
        when = "while the model was thinking" if self.ends_in_thinking else "right after the thinking"
        hint = "switch thinking off with --no-thinking"
        if self.finish in MORE_ROOM:
            hint = f"raise {MORE_ROOM[self.finish]}, or {hint}"
        return NoAnswerError(
            f"there is no answer: the text ended {when}, after {len(self.token_ids)} tokens: {self.ending}",
            hint,
        )


def describe_ending(finish: FinishDetail, stop_text: str | None) -> str:
    """Why a text ended, in the words of the JSON output: `stop (eos)`, `length (max_tokens)`, `cancelled`."""
    if finish is FinishDetail.CANCELLED:
        return finish.reason.value
    detail = finish.value if stop_text is None else f"{finish.value} {stop_text!r}"
    return f"{finish.reason.value} ({detail})"


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
        ends_in_thinking=last.is_thinking,
    )


class Clock:
    """Counts tokens and notes when the first and the last came."""

    def __init__(self, *, prompt_tokens: int, computed_tokens: int, seed: int) -> None:
        """Start now; the arguments are as on `Statistics`."""
        self.prompt_tokens = prompt_tokens
        self.computed_tokens = computed_tokens
        self.seed = seed
        self.count = 0
        self.thinking_count = 0
        self.start_s = self.first_s = self.last_s = time.perf_counter()

    def tick(self) -> None:
        """Count a token."""
        self.last_s = time.perf_counter()
        if self.count == 0:
            self.first_s = self.last_s
        self.count += 1

    def count_thinking(self) -> None:
        """Take the token that was counted last for one of the model's thinking."""
        self.thinking_count += 1

    def statistics(self, cache_tokens: int) -> Statistics:
        """What has been counted."""
        ttft_s = self.first_s - self.start_s
        decode_s = self.last_s - self.first_s
        return Statistics(
            prompt_tokens=self.prompt_tokens,
            computed_tokens=self.computed_tokens,
            completion_tokens=self.count,
            thinking_tokens=self.thinking_count,
            ttft_s=ttft_s,
            prefill_tps=self.computed_tokens / ttft_s if ttft_s else 0.0,
            decode_tps=(self.count - 1) / decode_s if decode_s and self.count >= FEWEST_TIMED else 0.0,
            seed=self.seed,
            cache_tokens=cache_tokens,
            peak_memory_bytes=mx.get_peak_memory(),
        )
