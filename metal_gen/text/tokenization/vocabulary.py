"""The tokens of a byte-level vocabulary: their ids, their texts and the bytes that they stand for."""

from functools import cached_property
from itertools import chain

from metal_gen.text.tokenization import byte_level


class Vocabulary:
    """The tokens of a tokenizer.

    Args:
        ids: Id of each token, by its text as the file writes it: in the alphabet of `byte_level`.
        added: Text of each token that was added to these, by its id.

    Attributes:
        ids: As given.
        added_ids: Ids of the added tokens, by their text.
    """

    def __init__(self, ids: dict[str, int], added: dict[int, str]) -> None:
        self.ids = ids
        self._added = added
        self.added_ids = {text: token for token, text in added.items()}

    @cached_property
    def _texts_as_written(self) -> list[str]:
        """The vocabulary in the order of its file, which is nearly always the order of its ids."""
        return list(self.ids)

    @cached_property
    def _texts(self) -> dict[int, str]:
        return {token: text for text, token in self.ids.items()}

    def _text_of(self, token: int) -> str | None:
        """Return a token as the vocabulary writes it. Inverting the whole vocabulary would take a while."""
        if token < len(self._texts_as_written):
            text = self._texts_as_written[token]
            if self.ids[text] == token:
                return text
        return self._texts.get(token)

    def id_of(self, token: str) -> int | None:
        """Return the id of a token given by its text, or None if there is none."""
        return self.added_ids.get(token, self.ids.get(token))

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token; none of an id that it does not have."""
        if token in self._added:
            return self._added[token].encode()
        text = self._text_of(token)
        return b"" if text is None else byte_level.token_bytes(text)

    def all_bytes(self, size: int) -> list[bytes]:
        """Return the bytes of every id below `size`."""
        every = [b""] * size
        for text, token in self.ids.items():
            if token < size:
                every[token] = byte_level.token_bytes(text)
        for token, text in self._added.items():
            if token < size:
                every[token] = text.encode()
        return every

    @cached_property
    def most_bytes_of_a_token(self) -> int:
        """The most UTF-8 bytes of a text that can become a single token, at least 1."""
        longest = max(map(len, self.ids), default=0)
        of_words = (
            byte_level.most_bytes(byte_level.token_bytes(text))
            for text in self.ids
            if len(text) * byte_level.MOST_SHRINKING >= longest
        )
        of_added = (byte_level.most_bytes(text.encode()) for text in self.added_ids)
        return max(chain([1], of_words, of_added))
