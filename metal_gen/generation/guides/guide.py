"""The guide of one text: its thinking, and the constraint that begins after it."""

from collections.abc import Sequence

import mlx.core as mx

from metal_gen.constraints.matcher import GrammarMatcher
from metal_gen.engine.stopping import FinishDetail
from metal_gen.errors import MetalGenError
from metal_gen.generation.guides.thinking import Phase, Thinking
from metal_gen.sampling.allowed import WORD_BITS, Allowed, word_count
from metal_gen.take_back import Recent


class TextGuide:
    """See `TokenGuide`.

    Args:
        thinking: The thinking of this text.
        matcher: Place of the answer within its grammar; None without a constraint.
        vocab_size: Rows of the model's logits.
        blank_lines: Tokens that models write between the thinking and the answer.
        forces: Whether tokens that must come are given as such. If not, they are the only ones allowed: a
            token has log-probabilities only if it is drawn.

    Attributes:
        error: See `TokenGuide`.
        thinking: As given.
    """

    def __init__(
        self,
        thinking: Thinking,
        matcher: GrammarMatcher | None,
        *,
        vocab_size: int,
        blank_lines: Sequence[int] = (),
        forces: bool = True,
    ) -> None:
        self.thinking = thinking
        self._matcher = matcher
        self._forces = forces
        self._blank_lines = blank_lines
        self._words = word_count(vocab_size)
        # Remaining tokens that end the thinking.
        self._closing: list[int] = []
        self.error: MetalGenError | None = None
        # Tokens that end the thinking, the error, and the number of tokens that the matcher has.
        self._recent: Recent[tuple[list[int], MetalGenError | None, int]] = Recent()
        self._matched = 0

    @property
    def is_constrained(self) -> bool:
        """Whether the text has a constraint."""
        return self._matcher is not None

    @property
    def begins_with_answer(self) -> bool:
        """Whether the constraint holds for the next token, and thinking can no longer begin."""
        return self._matcher is not None and self.thinking.phase is Phase.ANSWER

    @property
    def is_complete(self) -> bool:
        """Whether the answer fulfils the constraint."""
        return self._matcher is not None and self._matcher.is_complete

    def accept(self, token: int) -> FinishDetail | None:
        """See `TokenGuide`."""
        self._recent.keep(self._state)
        is_answer = self._is_answering and token != self.thinking.opening
        was_thinking = self.thinking.phase is Phase.THINKING
        # Guesses were accepted and taken back, and with them what `allowed` had found.
        self._end_thinking()
        if self._closing:
            self._closing.pop(0)
        self.thinking.accept(token)
        if self._matcher is None:
            return None
        if not is_answer:
            if was_thinking and self._is_answering:
                self._closing = list(self._blank_lines)
            return None
        # After white space of the answer, thinking can no longer begin.
        self.thinking.phase = Phase.ANSWER
        self._matcher.accept(token)
        self._matched += 1
        self.error = self._matcher.error
        is_over = self._matcher.is_over and self._matcher.is_complete
        return FinishDetail.GRAMMAR if is_over else None

    def take_back(self, count: int) -> None:
        """See `TokenGuide`."""
        matched = self._matched
        self._closing, self.error, self._matched = self._recent.take_back(count, self._state)
        self.thinking.take_back(count)
        if self._matcher is not None:
            self._matcher.take_back(matched - self._matched)

    @property
    def _state(self) -> tuple[list[int], MetalGenError | None, int]:
        return list(self._closing), self.error, self._matched

    def forced(self) -> Sequence[int]:
        """See `TokenGuide`."""
        return self._must_come() if self._forces else []

    def prepare(self) -> None:
        """See `TokenGuide`."""
        if self._matcher is not None and self._forces and self._is_answering:
            self._matcher.prepare()

    def allowed(self) -> Allowed | None:
        """See `TokenGuide`."""
        if not self._forces and (must_come := self._must_come()):
            return Allowed(self._only(must_come[0]))
        if self._matcher is None or not self._is_answering:
            return None
        bits = self._matcher.allowed()
        self.error = self._matcher.error
        opening = self.thinking.opening
        # Whether to think is for the model to choose among all tokens: few are allowed beside the tag.
        return Allowed(bits, instead=None if opening is None else self._only(opening))

    @property
    def _is_answering(self) -> bool:
        """Whether the next token belongs to the answer, or may belong to it."""
        return self.thinking.phase is not Phase.THINKING and not self._closing

    def _end_thinking(self) -> None:
        """Find the tokens that end the thinking, if it has to end now."""
        if not self._closing and self.thinking.phase is Phase.THINKING:
            self._closing = self.thinking.closing()

    def _must_come(self) -> list[int]:
        self._end_thinking()
        if self._closing:
            return list(self._closing)
        # Thinking may begin instead of the answer.
        if self._matcher is None or not self._is_answering or self.thinking.opening is not None:
            return []
        return self._matcher.forced()

    def _only(self, token: int) -> mx.array:
        words = [0] * self._words
        words[token // WORD_BITS] = 1 << token % WORD_BITS
        return mx.array([words], mx.uint32)
