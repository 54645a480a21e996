"""Tokens as OpenAI's API names them: by their text, and by its bytes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metal_gen.text.tokenizer import Tokenizer


class TokenTexts:
    """Texts and bytes of a tokenizer's tokens.

    Args:
        tokenizer: Of the model.
    """

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._special = {id: text for text, id in tokenizer.added_ids.items() if id in tokenizer.special_ids}

    def bytes_of(self, token: int) -> bytes | None:
        """The bytes of a token's text, a special token's too; None for an id that no token has."""
        if token in self._special:
            return self._special[token].encode()
        return self._tokenizer.token_bytes(token) or None

    def text_of(self, token: int) -> str:
        r"""A token's text; of bytes that are part of a character only, each is written as `\xf0`."""
        known = self.bytes_of(token)
        return f"token_id:{token}" if known is None else known.decode(errors="backslashreplace")

    def name_of(self, token: int) -> str:
        r"""A token's text as completions have it: one that is part of a character as `bytes:\xf0\x9f`."""
        known = self.bytes_of(token)
        try:
            return self.text_of(token) if known is None else known.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in known or b"")
