"""Separates a model's thinking from its answer, in a text that arrives in pieces."""

from enum import Enum, auto

from metal_gen.take_back import Recent
from metal_gen.text.encoded_prompt import Prompt

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"
TAGS = (THINK_OPEN, THINK_CLOSE)
# What may come before thinking. Guides look at the bytes of single tokens, so it is ASCII alone.
BLANKS = " \t\n\r\v\f"


class _Place(Enum):
    """The kind of text that comes next."""

    START = auto()
    THINKING = auto()
    ANSWER = auto()


class ThinkingSplitter:
    """Follows the thinking tags, which may be split over pieces, and removes them from the text.

    Thinking is a single block at the very start, apart from whitespace. A tag anywhere else is part of the
    text. Blank lines after a tag are removed too. A prompt without a chat template is not split: its tags are
    ordinary text.

    Args:
        prompt: Prompt that the text follows. Its prefill is the beginning of the text.
        is_answer: Whether all text after the prefill is the answer.

    Attributes:
        prefilled: Thinking and answer in the prefill.
    """

    def __init__(self, prompt: Prompt, *, is_answer: bool = False) -> None:
        self._place = _Place.START if prompt.is_chat else _Place.ANSWER
        if prompt.opens_thinking:
            self._place = _Place.THINKING
        self._after_tag = prompt.opens_thinking
        self._held = ""
        self._recent: Recent[tuple[_Place, bool, str]] = Recent()
        thinking, answer = self.feed(prompt.prefill)
        rest = self.finish()
        if rest[1].strip(BLANKS) or is_answer:
            self._place = _Place.ANSWER
        self.prefilled = thinking + rest[0], answer + rest[1]
        self._recent = Recent()

    @property
    def is_thinking(self) -> bool:
        """Whether a thinking block is open."""
        return self._place is _Place.THINKING

    def feed(self, text: str, *, is_plain: bool = False) -> tuple[str, str]:
        """Take the next piece.

        Args:
            text: The piece.
            is_plain: Whether it has no tags, not even parts of them. Where tags are tokens of their own,
                other tokens are plain.

        Returns:
            The thinking and the answer that are certain so far. Text that may belong to a tag is held back.
        """
        self._recent.keep(self._state)
        self._held += text
        if self._place is _Place.START:
            self._look_for_opening(is_plain=is_plain)
        thinking = self._next_thinking(is_plain=is_plain) if self._place is _Place.THINKING else ""
        answer = ""
        if self._place is _Place.ANSWER:
            answer, self._held = self._without_blank_lines(self._held), ""
        return thinking, answer

    def take_back(self, count: int) -> None:
        """Take back the last pieces."""
        self._place, self._after_tag, self._held = self._recent.take_back(count, self._state)

    @property
    def _state(self) -> tuple[_Place, bool, str]:
        return self._place, self._after_tag, self._held

    def finish(self) -> tuple[str, str]:
        """Return the held-back thinking and answer when no more text comes."""
        held, self._held = self._held, ""
        return (held, "") if self.is_thinking else ("", held)

    def _look_for_opening(self, *, is_plain: bool) -> None:
        begun = self._held.lstrip(BLANKS)
        if is_plain:
            self._place = _Place.ANSWER if begun else _Place.START
        elif begun.startswith(THINK_OPEN):
            self._place, self._after_tag = _Place.THINKING, True
            self._held = begun.removeprefix(THINK_OPEN)
        elif not THINK_OPEN.startswith(begun):
            self._place = _Place.ANSWER

    def _next_thinking(self, *, is_plain: bool) -> str:
        held = self._without_blank_lines(self._held)
        if is_plain:
            self._held = ""
            return held
        text, tag, rest = held.partition(THINK_CLOSE)
        if tag:
            self._place, self._after_tag, self._held = _Place.ANSWER, True, rest
            return text
        size = next(size for size in range(len(THINK_CLOSE), -1, -1) if text.endswith(THINK_CLOSE[:size]))
        self._held = THINK_CLOSE[:size]
        return text.removesuffix(self._held)

    def _without_blank_lines(self, text: str) -> str:
        """Remove the blank lines that follow a tag."""
        if self._after_tag:
            text = text.lstrip("\n")
            self._after_tag = not text
        return text
