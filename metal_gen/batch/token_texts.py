"""Tokens in the form of OpenAI's API: their text and its bytes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metal_gen.text.tokenizer import Tokenizer


class TokenTexts:
    """The texts and bytes of a tokenizer's tokens.

    Args:
        tokenizer: The model's tokenizer.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._special = {id: text for text, id in tokenizer.added_ids.items() if id in tokenizer.special_ids}

    def bytes_of(self, token: int) -> bytes | None:
        """Return the bytes of a token's text, special tokens included; None if no token has the id."""
        if token in self._special:
            return self._special[token].encode()
        return self._tokenizer.token_bytes(token) or None

    def text_of(self, token: int) -> str:
        r"""Return a token's text; bytes of an incomplete character are written as `\xf0`."""
        known = self.bytes_of(token)
        return f"token_id:{token}" if known is None else known.decode(errors="backslashreplace")

    def name_of(self, token: int) -> str:
        r"""Return a token's text as completions name it; an incomplete character is `bytes:\xf0\x9f`."""
        known = self.bytes_of(token)
        try:
            return self.text_of(token) if known is None else known.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in known or b"")
