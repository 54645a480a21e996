"""Tells a model's thinking from its answer, token by token."""

from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.tokenizer import Tokenizer

THINK_OPEN = "<think>"
THINK_CLOSE = "</think>"


class ThinkingSplitter:
    """Follows the thinking tags, which are single tokens, and takes them out of the text.

    The blank lines that models put after a tag are taken out too. A prompt without a chat
    template is not split: there the tags are text like any other.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt) -> None:
        tags = (tokenizer.id_of(THINK_OPEN), tokenizer.id_of(THINK_CLOSE))
        self._opening, self._closing = tags if prompt.is_chat else (None, None)
        self._thinking = prompt.opens_thinking
        self._after_tag = self._at_tag = False

    @property
    def has_just_begun(self) -> bool:
        """Whether the last token opened a thinking block."""
        return self._at_tag and self._thinking

    def split(self, token: int, text: str) -> tuple[str, bool]:
        """Return the text to show for a token, and whether it is thinking."""
        self._at_tag = token in (self._opening, self._closing)
        if self._at_tag:
            self._thinking = token == self._opening
            self._after_tag = True
            return "", self._thinking
        if self._after_tag:
            text = text.lstrip("\n")
            self._after_tag = not text
        return text, self._thinking
