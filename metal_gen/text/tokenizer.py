"""Text to token ids, and a token id to the bytes it stands for.

Encoding is the `tokenizers` library's. Decoding is byte by byte, so that a stream of tokens can
be shown as soon as its characters are whole: see `detokenizer`.
"""

import json
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as HubTokenizer
from tokenizers.decoders import ByteLevel

from metal_gen.errors import CheckpointError, DoesNotFitError, UsageError
from metal_gen.files.json_file import read_json
from metal_gen.text.library import (
    LibraryError,
    build_tokenizer,
    encode_text,
    least_tokens,
    library_errors,
    require_harmless,
)
from metal_gen.text.reduced_tokenizer import TokenizerReducer, is_plain
from metal_gen.text.thinking import TAGS

FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
FEW_TEXTS = 4
# A text longer than this takes its time; most have more tokens than an eighth of their characters.
LONG_TEXT = 1 << 20
MOST_CHARACTERS = 8
# Of a tokenizer's ids, the part that may be beyond the model's embedding.
MOST_BEYOND = 1 / 16


def _byte_level_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary.

    Printable bytes stand for themselves and the others for characters from U+0100 on.
    Source: `bytes_to_unicode` of GPT-2's encoder.py.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + place): byte for place, byte in enumerate(others)})
    return alphabet


ALPHABET = _byte_level_alphabet()
# Normalizing (NFC) makes a character of up to four times its bytes; of ASCII it makes these alone.
MOST_SHRINKING = 4
MADE_BY_NORMALIZING = frozenset(b";K`")


@dataclass(frozen=True)
class TokenizerDocument:
    """What a checkpoint says of its tokenizer.

    Attributes:
        path: The file that says it.
        document: The object in tokenizer.json.
        config: The object in tokenizer_config.json.
    """

    path: Path
    document: dict[str, Any]
    config: dict[str, Any]


def read_tokenizer(folder: Path) -> TokenizerDocument:
    """Read the files in a folder.

    Raises:
        CheckpointError: tokenizer.json is missing, or one of them cannot be read.
    """
    path, config = folder / FILE, folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {FILE}", "save it with transformers: AutoTokenizer(...).save_pretrained(...)"
        )
    return TokenizerDocument(
        path, read_json(path, is_vocabulary=True), read_json(config) if config.is_file() else {}
    )


class Tokenizer:
    """The tokenizer of a checkpoint.

    Attributes:
        added_ids: Tokens beside the byte-level ones, such as `<|im_end|>`, by their text.
        special_ids: Those that are not shown; thinking tags are told from the text where they count.

    Args:
        source: A checkpoint's folder, or what the files there would say.
        vocab_size: Of the model's embedding.

    Raises:
        CheckpointError: tokenizer.json is missing, cannot be read, is not byte-level, or has
            many ids beyond the embedding.
    """

    def __init__(self, source: "Path | TokenizerDocument", vocab_size: int) -> None:
        given = read_tokenizer(source) if isinstance(source, Path) else source
        self._path, document = given.path, given.document
        # Half a million objects, of which nothing is kept that the file can give again.
        self._kept = None if self._path.name == FILE else document
        try:
            with library_errors():
                require_harmless(document)
                self._reducer = TokenizerReducer(document) if is_plain(document) else None
        except LibraryError as error:
            raise self._unreadable(error) from error
        self._encoded = 0
        tokenizer = self._whole if self._reducer is None else self._reducer.letters_only
        if not isinstance(tokenizer.decoder, ByteLevel):
            raise CheckpointError(f"{self._path} is not byte-level BPE, as Qwen's tokenizers are")
        added = tokenizer.get_added_tokens_decoder()
        self._added = {token: entry.content for token, entry in added.items()}
        self.added_ids = {text: token for token, text in self._added.items()}
        self.special_ids = frozenset(
            token for token, entry in added.items() if entry.special and entry.content not in TAGS
        )
        self._ids: dict[str, int] = (
            self._whole.get_vocab() if self._reducer is None else document["model"]["vocab"]
        )
        self.vocab_size = vocab_size
        self._require_own(vocab_size, [*self._ids.values(), *added])
        self.config = given.config

    def _require_own(self, vocab_size: int, ids: list[int]) -> None:
        """See that it is not another model's; a few ids beyond the embedding just cannot be in a prompt."""
        largest = max(ids, default=0)
        if not ids or min(ids) < 0:
            raise CheckpointError(f"{self._path} has {'token ids below 0' if ids else 'no tokens'}")
        if largest < vocab_size:
            return
        beyond = len({token for token in ids if token >= vocab_size})
        if beyond > len(ids) * MOST_BEYOND:
            raise CheckpointError(
                f"{self._path} has {beyond:,} token ids, up to {largest}, that are not in the model's "
                f"vocabulary, which ends at {vocab_size - 1}",
                "the tokenizer belongs to another model",
            )

    @cached_property
    def _texts_as_written(self) -> list[str]:
        """The vocabulary in the order of its file, which nearly always is that of its ids."""
        return list(self._ids)

    @cached_property
    def _texts(self) -> dict[int, str]:
        return {token: text for text, token in self._ids.items()}

    def _text_of(self, token: int) -> str | None:
        """A token as it is written in the vocabulary; to turn the whole of it around takes a while."""
        if token < len(self._texts_as_written):
            text = self._texts_as_written[token]
            if self._ids[text] == token:
                return text
        return self._texts.get(token)

    @cached_property
    def _whole(self) -> HubTokenizer:
        """The tokenizer with all its merges."""
        try:
            return build_tokenizer(self._path if self._kept is None else json.dumps(self._kept))
        except LibraryError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: LibraryError) -> CheckpointError:
        return CheckpointError(
            f"{self._path} cannot be used as a tokenizer: {error}", "download or copy the file again"
        )

    def expect_many_texts(self) -> None:
        """Build the whole tokenizer now.

        Raises:
            CheckpointError: It cannot be built.
        """
        self._reducer = None
        _ = self._whole

    def _tokenizer_for(self, text: str) -> HubTokenizer:
        """The first few short texts do not need the whole tokenizer, which takes longer to build."""
        self._encoded += 1
        if self._reducer is None or self._encoded > FEW_TEXTS:
            self._reducer = None
            return self._whole
        try:
            with library_errors():
                return self._reducer.reduced_for(text) or self._whole
        except LibraryError:
            # The whole one says what is wrong with the file.
            return self._whole

    @property
    def eos_id(self) -> int | None:
        """The id of tokenizer_config.json's `eos_token`."""
        token = self.config.get("eos_token")
        content = token.get("content") if isinstance(token, dict) else token
        return self.id_of(content) if isinstance(content, str) else None

    @cached_property
    def _most_bytes_of_a_token(self) -> int:
        longest = max(map(len, self._ids), default=0)
        of_words = (_most_bytes(_bytes(text)) for text in self._ids if len(text) * MOST_SHRINKING >= longest)
        return max(*of_words, *(_most_bytes(text.encode()) for text in self.added_ids), 1)

    def most_bytes(self, tokens: int) -> int:
        """The bytes of UTF-8 that so many tokens can stand for at most: a longer text need not be encoded."""
        return tokens * self._most_bytes_of_a_token

    def _require_length(self, text: str, most_tokens: int) -> None:
        """Count characters, of which none has less than a byte; of a long text encode the beginning."""
        fits = len(text) <= self.most_bytes(most_tokens)
        beginning = text[: MOST_CHARACTERS * most_tokens]
        if fits and len(text) > LONG_TEXT and len(beginning) < len(text):
            with suppress(LibraryError):  # For which the whole is refused, with a reason.
                uncertain = max(map(len, self.added_ids), default=0)
                fits = least_tokens(self._whole, beginning, uncertain) <= most_tokens
        if not fits:
            raise DoesNotFitError(
                f"the prompt of {len(text):,} characters does not fit: it has more than {most_tokens:,} "
                "tokens, the most that there can be",
                "shorten the prompt; metal-gen plan says how many tokens fit",
            )

    def id_of(self, token: str) -> int | None:
        """The id of a token given by its text, such as `<think>`."""
        return self.added_ids.get(token, self._ids.get(token))

    def encode(self, text: str, *, add_special_tokens: bool, most_tokens: int | None = None) -> list[int]:
        """Encode text; special tokens written in it count as such.

        Args:
            text: Of any length.
            add_special_tokens: Put a start token before it where the tokenizer has one; not for
                text from a chat template, which has its own.
            most_tokens: A text that is known to have more is refused before it is encoded, for which the
                library takes more than a hundred times its size; None encodes any.

        Raises:
            DoesNotFitError: The text has more than `most_tokens`, by its length or its beginning alone.
            UsageError: The text has halves of characters (lone surrogates), or is one that the library cannot
                encode.
            CheckpointError: The text needs ids that the model does not have.
        """
        if most_tokens is not None and len(text) > most_tokens:
            self._require_length(text, most_tokens)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the prompt is not Unicode text at character {error.start}") from None
        tokenizer = self._tokenizer_for(text)
        try:
            ids = encode_text(tokenizer, text, add_special_tokens=add_special_tokens)
        except LibraryError as error:
            raise UsageError(f"the prompt cannot be encoded with {self._path.name}: {error}") from error
        if ids and max(ids) >= self.vocab_size:
            raise CheckpointError(
                f"{self._path.name} gives token {max(ids)} and the model's vocabulary ends at "
                f"{self.vocab_size - 1}",
                "the tokenizer belongs to another model",
            )
        return ids

    def token_bytes(self, token: int) -> bytes:
        """The bytes that a token stands for.

        Special tokens and ids beyond the vocabulary (Qwen pads its embedding) have none.
        """
        if token in self.special_ids:
            return b""
        if token in self._added:
            return self._added[token].encode()
        text = self._text_of(token)
        return b"" if text is None else _bytes(text)


def _most_bytes(token: bytes) -> int:
    """The bytes of the longest text that is normalized to those of a token."""
    return sum(1 if byte < 0x80 and byte not in MADE_BY_NORMALIZING else MOST_SHRINKING for byte in token)


def _bytes(text: str) -> bytes:
    """The bytes that a token stands for, from how the vocabulary writes it."""
    if all(character in ALPHABET for character in text):
        return bytes(ALPHABET[character] for character in text)
    return text.encode()
