"""Turns token ids into text, piece by piece."""

import codecs

from metal_gen.take_back import Recent
from metal_gen.text.tokenizer import Tokenizer


class Detokenizer:
    """Turns a stream of tokens into pieces of text that are final once returned.

    A character is held back until its last byte arrives. The joined pieces equal the decoding of all tokens
    at once, with U+FFFD for invalid UTF-8.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._recent: Recent[tuple[bytes, int]] = Recent()

    def add(self, token: int) -> str:
        """Return the characters that this token completes, often none."""
        self._recent.keep(self._decoder.getstate())
        return self._decoder.decode(self._tokenizer.token_bytes(token))

    def take_back(self, count: int) -> None:
        """Take back the last tokens."""
        self._decoder.setstate(self._recent.take_back(count, self._decoder.getstate()))

    def finish(self) -> str:
        """Return the held-back text: U+FFFD for a character that was never completed."""
        return self._decoder.decode(b"", final=True)
