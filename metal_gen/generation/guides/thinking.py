"""Follows the thinking of one text by its tags, and says when it has to end."""

from enum import Enum, auto

from metal_gen.generation.guides.loops import LoopDetector
from metal_gen.take_back import Recent
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.thinking import THINK_CLOSE, THINK_OPEN, ThinkingSplitter
from metal_gen.text.tokenizer import Tokenizer

# Source: Qwen3 Technical Report (arXiv 2505.09388), section 4.3, on thinking budgets.
CLOSING = (
    "\n\nConsidering the limited time by the user, I have to give the solution based on the thinking "
    "directly now.\n</think>\n\n"
)
# Closes thinking that has not begun.
EMPTY_CLOSING = "\n</think>\n\n"
# Tokens at the end of a prompt among which a template may have closed the thinking.
LAST_TOKENS = 4


class Phase(Enum):
    """The phase of a text."""

    START = auto()
    THINKING = auto()
    ANSWER = auto()


class Thinking:
    """The thinking of one text.

    Args:
        tokenizer: Tokenizer of the model. Tags count where they are tokens of their own.
        prompt: The prompt that the text follows.
        budget: Maximum number of tokens of thinking; None sets no limit.
        breaks_loops: Whether thinking that repeats itself ends.

    Attributes:
        phase: What the next token belongs to.
        cut: Why the thinking was ended: `budget` or `loop`; None if it was not.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt: Prompt, *, budget: int | None, breaks_loops: bool
    ) -> None:
        self._tokenizer = tokenizer
        self._budget = budget
        self._open = tokenizer.added_ids.get(THINK_OPEN)
        self._close = tokenizer.added_ids.get(THINK_CLOSE)
        self._loops = LoopDetector() if breaks_loops else None
        self._tokens = self._in_loops = 0
        self.phase = self._first_phase(prompt)
        self.cut: str | None = None
        self._recent: Recent[tuple[Phase, str | None, int, int]] = Recent()

    def _first_phase(self, prompt: Prompt) -> Phase:
        if self._close is None or not prompt.is_chat:
            return Phase.ANSWER
        splitter = ThinkingSplitter(prompt)
        if splitter.is_thinking:
            return Phase.THINKING
        is_closed = self._close in prompt.ids[-LAST_TOKENS:]
        has_begun = is_closed or any(splitter.prefilled) or self._open is None
        return Phase.ANSWER if has_begun else Phase.START

    @property
    def opening(self) -> int | None:
        """The token that may open the thinking now; None if none may."""
        return self._open if self.phase is Phase.START else None

    def begin_with_answer(self) -> None:
        """Expect no thinking at the beginning of the text, unless the prompt has opened it."""
        if self.phase is Phase.START:
            self.phase = Phase.ANSWER

    def accept(self, token: int) -> None:
        """Record the next token."""
        self._recent.keep(self._state)
        if token == self._open and self.phase is not Phase.THINKING:
            # An answer may open thinking again, which has to end as well.
            self.phase, self._tokens = Phase.THINKING, 0
            if self._loops is not None:
                self._in_loops += 1
                self._loops.clear()
        elif token == self._close:
            self.phase = Phase.ANSWER
        elif self.phase is Phase.START:
            is_blank = not self._tokenizer.token_bytes(token).strip()
            self.phase = Phase.START if is_blank else Phase.ANSWER
        elif self.phase is Phase.THINKING:
            self._tokens += 1
            if self._loops is not None:
                self._in_loops += 1
                if self._loops.add(token):
                    self.cut = "loop"

    def take_back(self, count: int) -> None:
        """Take back the last tokens."""
        in_loops = self._in_loops
        self.phase, self.cut, self._tokens, self._in_loops = self._recent.take_back(count, self._state)
        if self._loops is not None:
            self._loops.take_back(in_loops - self._in_loops)

    @property
    def _state(self) -> tuple[Phase, str | None, int, int]:
        return self.phase, self.cut, self._tokens, self._in_loops

    def closing(self) -> list[int]:
        """Return the tokens that end the thinking, if it has to end now."""
        if self.phase is not Phase.THINKING:
            return []
        if self.cut != "loop" and (self._budget is None or self._tokens < self._budget):
            return []
        self.cut = self.cut or "budget"
        text = CLOSING if self._tokens else EMPTY_CLOSING
        return self._tokenizer.encode(text, add_special_tokens=False)
