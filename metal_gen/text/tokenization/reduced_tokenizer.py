"""A tokenizer for one text: the same file without the merges that cannot occur in that text.

Building all of Qwen's tokenizer takes longer than everything else before the first token of a small model.
But a byte-pair merge makes a part of a word, and a short text has few words. All other merges can be left
out without any effect. The encoding itself is done by the `tokenizers` library.
"""

import json
from collections.abc import Iterable
from functools import cached_property
from itertools import groupby, pairwise
from typing import Any

from tokenizers import Encoding
from tokenizers import Tokenizer as HubTokenizer

from metal_gen.text.tokenization.library import build_tokenizer

# Beyond this many parts of words, the whole tokenizer is as fast.
MOST_PARTS = 100_000
LONGEST_TEXT = 200_000
# Maximum number of words whose ids are kept.
MOST_WORDS = 4096
# Model fields and values for which a word's encoding follows from the merges alone.
PLAIN_BPE = {
    "type": "BPE",
    "dropout": None,
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "byte_fallback": False,
    "ignore_merges": False,
}


class TokenizerReducer:
    """Makes reduced tokenizers from a tokenizer.json.

    Args:
        document: The parsed file, whose model is plain byte-pair encoding (see `is_plain`).
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self._frame = {key: value for key, value in document.items() if key != "model"}
        self._model = document["model"]
        self._added = {entry["content"]: entry["id"] for entry in document["added_tokens"]}
        self._letters = {token for token in self._model["vocab"] if len(token) == 1}
        self.letters_only = self._with(self._letters, [])
        self._known_words: dict[str, list[int]] = {}

    def reduced_for(self, text: str) -> HubTokenizer | None:
        """Return a tokenizer that encodes this text like the whole one, or None if it would be too large.

        Args:
            text: Valid Unicode.
        """
        if len(text) > LONGEST_TEXT:
            return None
        words = set(_words(self.letters_only.encode(text, add_special_tokens=False)))
        if sum(len(word) * (len(word) + 1) // 2 for word in words) > MOST_PARTS:
            return None
        parts = {part for word in words for part in _parts(word)}
        merges = [(first, second) for first, second in self._model["merges"] if first + second in parts]
        return self._with(parts | self._letters, merges)

    def encode(self, text: str) -> list[int]:
        """Encode a short text like the whole tokenizer, without building one.

        Source: the merging of `tokenizers`, models/bpe/word.rs: always the pair that was learnt first.
        """
        encoding = self.letters_only.encode(text, add_special_tokens=False)
        ids: list[int] = []
        letters = zip(encoding.word_ids, encoding.tokens, encoding.ids, strict=True)
        for _, group in groupby(letters, key=lambda letter: letter[0]):
            word = [(token, id) for _, token, id in group]
            if any(token in self._added for token, _ in word):
                ids += [id for _, id in word]
            else:
                ids += self._word_ids("".join(token for token, _ in word))
        return ids

    @cached_property
    def _ranks(self) -> dict[tuple[str, str], int]:
        """The place of each merge in the order in which they were learnt."""
        return {(first, second): rank for rank, (first, second) in enumerate(self._model["merges"])}

    def _word_ids(self, word: str) -> list[int]:
        if word not in self._known_words:
            if len(self._known_words) >= MOST_WORDS:
                self._known_words.clear()
            parts = list(word)
            while pairs := [pair for pair in pairwise(parts) if pair in self._ranks]:
                first, second = min(pairs, key=self._ranks.__getitem__)
                place = next(at for at, pair in enumerate(pairwise(parts)) if pair == (first, second))
                parts[place : place + 2] = [first + second]
            self._known_words[word] = [self._model["vocab"][part] for part in parts]
        return self._known_words[word]

    def _with(self, tokens: set[str], merges: list[tuple[str, str]]) -> HubTokenizer:
        """Return the tokenizer with these tokens, as far as they exist, and only these merges."""
        known = self._model["vocab"]
        vocabulary = {token: known[token] for token in tokens if token in known} | self._added
        model = {**self._model, "vocab": vocabulary, "merges": merges}
        return build_tokenizer(json.dumps({**self._frame, "model": model}))


def is_plain(document: dict[str, Any]) -> bool:
    """Return whether a tokenizer.json can be reduced. A damaged one cannot."""
    model, added = document.get("model"), document.get("added_tokens")
    if not isinstance(model, dict) or not isinstance(added, list):
        return False
    if any(model.get(key, value) != value for key, value in PLAIN_BPE.items()):
        return False
    vocabulary, merges = model.get("vocab"), model.get("merges")
    return (
        isinstance(vocabulary, dict)
        and isinstance(merges, list)
        and set(map(type, vocabulary.values())) <= {int}
        and set(map(type, merges)) <= {list}
        and set(map(len, merges)) <= {2}
        and all(isinstance(entry, dict) and {"id", "content"} <= entry.keys() for entry in added)
        and _has_ids_in_turn(vocabulary, added)
    )


def _has_ids_in_turn(vocabulary: dict[str, int], added: list[dict[str, Any]]) -> bool:
    """Return whether added tokens have the ids that the library assigns, whatever the file says."""
    new = [entry for entry in added if entry["content"] not in vocabulary]
    known = [entry for entry in added if entry["content"] in vocabulary]
    return [entry["id"] for entry in new] == list(range(len(vocabulary), len(vocabulary) + len(new))) and all(
        entry["id"] == vocabulary[entry["content"]] for entry in known
    )


def _words(encoding: Encoding) -> Iterable[str]:
    """Yield the words, which are encoded separately, as letters of the byte-level alphabet."""
    letters = zip(encoding.word_ids, encoding.tokens, strict=True)
    for _, group in groupby(letters, key=lambda letter: letter[0]):
        yield "".join(letter for _, letter in group)


def _parts(word: str) -> Iterable[str]:
    return (word[begin:end] for begin in range(len(word)) for end in range(begin + 1, len(word) + 1))
