"""Turns text into token ids, and a token id into its bytes.

The `tokenizers` library encodes. Decoding is byte by byte, so that a stream of tokens can be shown as soon as
its characters are complete: see `tokenization.vocabulary` and `detokenizer`.
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
from metal_gen.text.thinking import TAGS
from metal_gen.text.tokenization.library import (
    LibraryError,
    build_tokenizer,
    encode_text,
    least_tokens,
    library_errors,
    require_harmless,
)
from metal_gen.text.tokenization.reduced_tokenizer import TokenizerReducer, is_plain
from metal_gen.text.tokenization.vocabulary import Vocabulary
from metal_gen.text.tool_calls import CLOSE, OPEN

FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
# Tags that tell the parts of an answer apart, whatever a file says of them.
SHOWN = (*TAGS, OPEN, CLOSE)
FEW_TEXTS = 4
# Encoding a text longer than this takes noticeable time. Most have more than one token per 8 characters.
LONG_TEXT = 1 << 20
CHARACTERS_PER_TOKEN = 8
# Share of a tokenizer's ids that may be beyond the model's embedding.
MOST_BEYOND = 1 / 16


@dataclass(frozen=True)
class TokenizerDocument:
    """A checkpoint's description of its tokenizer.

    Attributes:
        path: File that contains it.
        document: The object in tokenizer.json.
        config: The object in tokenizer_config.json.
    """

    path: Path
    document: dict[str, Any]
    config: dict[str, Any]


def read_tokenizer(folder: Path) -> TokenizerDocument:
    """Read the tokenizer files in a folder.

    Raises:
        CheckpointError: tokenizer.json is missing, or a file cannot be read.
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
        added_ids: Tokens added to the byte-level ones, such as `<|im_end|>`, by their text.
        special_ids: Added tokens that are not shown. Thinking tags are not among them, because they are
            recognized in the text.

    Args:
        source: A checkpoint's folder, or the contents of its files.
        vocab_size: Vocabulary size of the model's embedding.

    Raises:
        CheckpointError: tokenizer.json is missing, cannot be read, is not byte-level, or has many ids
            beyond the embedding.
    """

    def __init__(self, source: "Path | TokenizerDocument", vocab_size: int) -> None:
        given = read_tokenizer(source) if isinstance(source, Path) else source
        self._path, document = given.path, given.document
        # Half a million objects: keep nothing that can be read from the file again.
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
        self.special_ids = frozenset(
            token for token, entry in added.items() if entry.special and entry.content not in SHOWN
        )
        ids = self._whole.get_vocab() if self._reducer is None else document["model"]["vocab"]
        self._vocabulary = Vocabulary(ids, {token: entry.content for token, entry in added.items()})
        self.added_ids = self._vocabulary.added_ids
        self.vocab_size = vocab_size
        self._require_own(vocab_size, [*ids.values(), *added])
        self.config = given.config

    def _require_own(self, vocab_size: int, ids: list[int]) -> None:
        """Refuse another model's tokenizer. A few ids beyond the embedding are fine but cannot be used."""
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
            CheckpointError: The tokenizer cannot be built.
        """
        self._reducer = None
        _ = self._whole

    def _tokenizer_for(self, text: str) -> HubTokenizer:
        """Return a reduced tokenizer for the first few short texts; the whole one takes longer to build."""
        self._encoded += 1
        if self._reducer is None or self._encoded > FEW_TEXTS:
            self._reducer = None
            return self._whole
        try:
            with library_errors():
                return self._reducer.reduced_for(text) or self._whole
        except LibraryError:
            # The whole tokenizer's own error says what is wrong with the file.
            return self._whole

    @property
    def ids(self) -> dict[str, int]:
        """The id of each token of the vocabulary, by its text as the vocabulary writes it."""
        return {**self._vocabulary.ids, **self.added_ids}

    @property
    def eos_id(self) -> int | None:
        """Id of tokenizer_config.json's `eos_token`; None if it has none."""
        token = self.config.get("eos_token")
        content = token.get("content") if isinstance(token, dict) else token
        return self.id_of(content) if isinstance(content, str) else None

    def most_bytes(self, tokens: int) -> int:
        """Return the most UTF-8 bytes that this many tokens can stand for. A longer text has more tokens."""
        return tokens * self._vocabulary.most_bytes_of_a_token

    def _require_length(self, text: str, most_tokens: int, what: str) -> None:
        """Refuse a text that has too many tokens.

        Counts characters, each at least one byte, and encodes the beginning of a long text.
        """
        fits = len(text) <= self.most_bytes(most_tokens)
        beginning = text[: CHARACTERS_PER_TOKEN * most_tokens]
        if fits and len(text) > LONG_TEXT and len(beginning) < len(text):
            with suppress(LibraryError):  # Encoding the whole text then fails, with a reason.
                uncertain = max(map(len, self.added_ids), default=0)
                fits = least_tokens(self._whole, beginning, uncertain) <= most_tokens
        if not fits:
            raise DoesNotFitError(
                f"the {what} of {len(text):,} characters does not fit: it has more than {most_tokens:,} "
                "tokens, which is the limit",
                f"shorten the {what}; `metal-gen plan` shows how many tokens fit",
            )

    def id_of(self, token: str) -> int | None:
        """Return the id of a token given by its text, such as `<think>`, or None if there is none."""
        return self._vocabulary.id_of(token)

    def encode(
        self, text: str, *, add_special_tokens: bool, most_tokens: int | None = None, what: str = "prompt"
    ) -> list[int]:
        """Encode text. Special tokens in the text count as such.

        Args:
            text: Text of any length.
            add_special_tokens: Put a start token first, if the tokenizer has one. Not for text from a chat
                template, which contains its own.
            most_tokens: Refuse a text that is known to have more tokens before encoding it, because the
                library needs more than a hundred times its size; None encodes any text.
            what: Name of the text in errors.

        Raises:
            DoesNotFitError: Its length or its beginning shows that the text has more tokens than that.
            UsageError: The text has unpaired surrogates, or the library cannot encode it.
            CheckpointError: The text needs ids that the model does not have.
        """
        if most_tokens is not None and len(text) > most_tokens:
            self._require_length(text, most_tokens, what)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"the {what} is not Unicode text at character {error.start}") from None
        tokenizer = self._tokenizer_for(text)
        try:
            ids = encode_text(tokenizer, text, add_special_tokens=add_special_tokens)
        except LibraryError as error:
            raise UsageError(f"the {what} cannot be encoded with {self._path.name}: {error}") from error
        if ids and max(ids) >= self.vocab_size:
            raise CheckpointError(
                f"{self._path.name} gives token {max(ids)}, but the model's vocabulary ends at "
                f"{self.vocab_size - 1}",
                "the tokenizer belongs to another model",
            )
        return ids

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes that a token stands for.

        Special tokens have none, and neither do ids beyond the vocabulary (Qwen pads its embedding).
        """
        return b"" if token in self.special_ids else self._vocabulary.bytes_of(token)

    def all_token_bytes(self) -> list[bytes]:
        """Return the bytes of every id below `vocab_size`; added tokens have those of their texts."""
        return self._vocabulary.all_bytes(self.vocab_size)

    def encode_part(self, text: str) -> list[int]:
        """Encode a short part of an answer, without building the whole tokenizer where that is possible."""
        if self._reducer is not None:
            return self._reducer.encode(text)
        return self.encode(text, add_special_tokens=False)
