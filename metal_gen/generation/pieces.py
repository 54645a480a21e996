"""The results of generation: pieces of text as they come, whole texts, counts and times."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.engine.stopping import FinishDetail, FinishReason
from metal_gen.errors import IncompleteError, NoAnswerError
from metal_gen.sampling.logprobs import TokenLogprobs
from metal_gen.speculation.counts import SpeculationCounts
from metal_gen.text.tool_calls import ParsedAnswer, ToolCall

# On a CPU, the second token is computed before the first is passed on, so both arrive at once.
FEWEST_TIMED = 3
# The option that gives a text more room, by what ended the text.
MORE_ROOM = {FinishDetail.MAX_TOKENS: "--max-tokens", FinishDetail.CACHE_FULL: "--max-seq-len"}
# For a text that its constraint lets go on for ever. A model learns of a constraint by its prompt alone.
BOUND = "bound what the constraint lets grow, as by maxLength or maximum in a schema"


@dataclass(frozen=True)
class Statistics:
    """Counts and times of one text so far.

    Attributes:
        prompt_tokens: Number of prompt tokens, including the template.
        computed_tokens: Prompt tokens that were computed for this text alone: all but those that the cache
            already held; 0 for a second sample and in a batch.
        completion_tokens: Number of new tokens, including the end token.
        thinking_tokens: Number of new tokens that belong to the model's thinking.
        ttft_s: Seconds from the start of prefill to the first new token; for a second sample, from its
            own start.
        prefill_tps: `computed_tokens` per second of `ttft_s`.
        decode_tps: (n - 1) / (t_last - t_first); 0 before the third token.
        seed: Seed of the draws.
        cache_tokens: Number of cache positions in use.
        peak_memory_bytes: Peak memory that MLX has allocated in this process.
        stored_tokens: Prompt tokens whose keys and values came from the prefix cache on disk.
        speculation: What came of guesses; None without them.
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
    stored_tokens: int = 0
    speculation: SpeculationCounts | None = None


@dataclass(frozen=True)
class Piece:
    """A part of a text, as it comes.

    Attributes:
        text: Final characters; may be empty while a character or a stop string is incomplete.
        token_id: Token that completed the text.
        is_thinking: Whether the text belongs to the model's thinking rather than to its answer.
        finish: Why the text ends; set on the last piece only.
        stop_text: Stop string that ended the text.
        logprobs: Log-probabilities of the token, if requested.
        sample: Index of the text among several for one prompt, from 0.
        statistics: Counts and times up to this piece.
        complete: Whether the answer is a whole document now; None without a constraint.
        thinking_cut: Why the thinking was ended, `budget` or `loop`; None if it was not.
        answer: The whole answer with its calls of functions told apart; set on the last piece of a text for
            which there are tools.
        thinking_end: The end of the thinking, if a last token holds it and the beginning of the answer, which
            is then the text.
    """

    text: str
    token_id: int
    is_thinking: bool
    finish: FinishDetail | None
    stop_text: str | None
    logprobs: TokenLogprobs | None
    sample: int
    statistics: Statistics
    complete: bool | None = None
    thinking_cut: str | None = None
    answer: ParsedAnswer | None = None
    thinking_end: str = ""

    @property
    def thinking(self) -> str:
        """The thinking that the token brought, if any."""
        return self.text if self.is_thinking else self.thinking_end

    @property
    def finish_reason(self) -> FinishReason | None:
        """`finish` in the words of common APIs."""
        return None if self.finish is None else self.finish.reason

    @property
    def ending(self) -> str:
        """Why the text ended, if this is its last piece; see `describe_ending`."""
        return describe_ending(self.finish or FinishDetail.CANCELLED, self.stop_text)


@dataclass(frozen=True)
class Generation:
    """A whole text.

    Attributes:
        text: The answer.
        thinking: The model's thinking before the answer, if any.
        token_ids: All new tokens, including the end token.
        finish: Why the text ended.
        stop_text: Stop string that ended the text.
        logprobs: Log-probabilities of each token, if requested.
        statistics: Counts and times of the whole text.
        ends_in_thinking: Whether the last token belongs to the model's thinking.
        complete: Whether the answer is a whole document; None without a constraint.
        thinking_cut: Why the thinking was ended, `budget` or `loop`; None if it was not.
        tool_calls: Calls of functions in the answer, which its text is without.
        unparsed_tool_calls: Number of calls that could not be read, and stay in the text.
    """

    text: str
    thinking: str
    token_ids: list[int]
    finish: FinishDetail
    stop_text: str | None
    logprobs: list[TokenLogprobs]
    statistics: Statistics
    ends_in_thinking: bool = False
    complete: bool | None = None
    thinking_cut: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    unparsed_tool_calls: int = 0

    @property
    def finish_reason(self) -> FinishReason:
        """`finish` in the words of common APIs."""
        return self.finish.reason

    @property
    def ending(self) -> str:
        """Why the text ended; see `describe_ending`."""
        return describe_ending(self.finish, self.stop_text)

    @property
    def missing_answer(self) -> NoAnswerError | None:
        """The error for a text without an answer after thinking; None if there is an answer."""
        if (
            self.complete
            or self.tool_calls
            or self.text.strip()
            or not (self.thinking or self.ends_in_thinking)
        ):
            return None
        when = "while the model was thinking" if self.ends_in_thinking else "right after the thinking"
        hint = "switch thinking off with --no-thinking"
        if self.finish in MORE_ROOM:
            hint = f"raise {MORE_ROOM[self.finish]}, or {hint}"
        return NoAnswerError(
            f"there is no answer: the text ended {when}, after {len(self.token_ids)} tokens: {self.ending}",
            hint,
        )

    @property
    def shortcoming(self) -> NoAnswerError | IncompleteError | None:
        """The error for a text that is not what was asked for; None if it is."""
        if (missing := self.missing_answer) is not None or self.complete is not False:
            return missing
        hint = "remove what ends the text before its constraint is met"
        if self.finish is FinishDetail.LOOP:
            hint = f"the model repeats itself: say in the prompt what the answer has to be, or {BOUND}"
        elif self.finish in MORE_ROOM:
            hint = f"raise {MORE_ROOM[self.finish]}, or {BOUND}"
        return IncompleteError(
            f"the text is not complete: it ended after {len(self.token_ids)} tokens: {self.ending}", hint
        )


def describe_ending(finish: FinishDetail, stop_text: str | None) -> str:
    """Describe why a text ended, as in JSON output: `stop (eos)`, `length (max_tokens)`, `cancelled`."""
    if finish is FinishDetail.CANCELLED:
        return finish.reason.value
    detail = finish.value if stop_text is None else f"{finish.value} {stop_text!r}"
    return f"{finish.reason.value} ({detail})"


def join(pieces: Sequence[Piece]) -> Generation:
    """Join the pieces of one text. A text without a last piece was cancelled."""
    last = pieces[-1]
    text = "".join(piece.text for piece in pieces if not piece.is_thinking)
    return Generation(
        text=text if last.answer is None else last.answer.content,
        thinking="".join(piece.thinking for piece in pieces),
        token_ids=[piece.token_id for piece in pieces],
        finish=last.finish or FinishDetail.CANCELLED,
        stop_text=last.stop_text,
        logprobs=[piece.logprobs for piece in pieces if piece.logprobs is not None],
        statistics=last.statistics,
        ends_in_thinking=last.is_thinking,
        complete=last.complete,
        thinking_cut=last.thinking_cut,
        tool_calls=() if last.answer is None else last.answer.calls,
        unparsed_tool_calls=0 if last.answer is None else last.answer.unparsed,
    )


class Clock:
    """Counts tokens and records the times of the first and the last."""

    def __init__(
        self, *, prompt_tokens: int, computed_tokens: int, seed: int, stored_tokens: int = 0
    ) -> None:
        """Start now. The arguments are fields of `Statistics`."""
        self.prompt_tokens = prompt_tokens
        self.computed_tokens = computed_tokens
        self.stored_tokens = stored_tokens
        self.seed = seed
        self.speculation: SpeculationCounts | None = None
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
        """Count the last token as thinking."""
        self.thinking_count += 1

    def statistics(self, cache_tokens: int) -> Statistics:
        """Return the counts and times so far."""
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
            stored_tokens=self.stored_tokens,
            speculation=None if self.speculation is None else self.speculation.copied(),
        )
