"""The `tokenizers` library: builds its tokenizers, and turns whatever goes wrong in it into one error.

A tokenizer.json may hold the state of another program's session, expressions that never end, and rules
that make a text a million times longer. The first has no part in a prompt, and the others are refused.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from metal_gen.excerpt import excerpt

# What the library's compiled part raises, which is no Exception.
PANIC = "PanicException"
# The library gives up an expression after ten million steps: so many characters of one kind are too many.
LONGEST_RUN = 8_000_000
RUN = re.compile(rf"\s{{{LONGEST_RUN}}}")
MOST_GROWTH = 100
# Of an expression: escapes and classes, which are passed over; groups; and what leaves a choice.
PIECES = re.compile(
    r"\\p\{[^}]*\}|\\.|\[\^?\]?(?:\\.|\[:[^\]]*:\]|[^\]\\])*\]|(?P<open>\()\??|(?P<close>\))|(?P<choice>[*+?|]"
    r"|\{\d*,\d*\})",
    re.DOTALL,
)
WITHOUT_END = re.compile(r"[*+]|\{\d+,\}")


class LibraryError(Exception):
    """The library cannot do something; the reason reads on after a colon."""


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn what the library raises into a `LibraryError`."""
    try:
        yield
    except LibraryError:
        raise
    except Exception as error:  # The library raises nothing narrower.
        raise LibraryError(excerpt(error)) from error
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise LibraryError(excerpt(error)) from None


def build_tokenizer(source: Path | str) -> Tokenizer:
    """Build a tokenizer that encodes the whole of a text, and nothing else.

    Args:
        source: A tokenizer.json, or what would be in one.

    Raises:
        LibraryError: It cannot be built.
    """
    with library_errors():
        is_file = isinstance(source, Path)
        tokenizer = Tokenizer.from_file(str(source)) if is_file else Tokenizer.from_str(str(source))
        # Left behind by a trainer, which cuts and fills up its texts, and leaves out merges at random.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None
        return tokenizer


def encode_text(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool) -> list[int]:
    """Encode a text.

    Args:
        tokenizer: Of the library.
        text: Valid Unicode.
        add_special_tokens: Put a start token before it, where the tokenizer has one.

    Raises:
        LibraryError: It cannot be encoded.
    """
    if len(text) >= LONGEST_RUN and RUN.search(text):
        raise LibraryError(f"it has more than {LONGEST_RUN:,} blank characters in a row")
    with library_errors():
        ids: list[int] = tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids


def least_tokens(tokenizer: Tokenizer, beginning: str, uncertain: int) -> int:
    """Count the tokens that every text has which begins so.

    Args:
        tokenizer: Of the library.
        beginning: Valid Unicode.
        uncertain: Characters at its end of which another token may be made: those of the longest added one.
            So may be of the two words before.

    Raises:
        LibraryError: It cannot be encoded.
    """
    with library_errors():
        encoding = tokenizer.encode(beginning, add_special_tokens=False)
    certain = len(beginning) - uncertain
    words = [
        word for word, (_, end) in zip(encoding.word_ids, encoding.offsets, strict=True) if end <= certain
    ]
    for _ in range(2):
        last = words[-1] if words else None
        while words and words[-1] == last:
            words.pop()
    return len(words)


def require_harmless(document: dict[str, Any]) -> None:
    """Refuse expressions that may never end, and normalizers that make a text much longer.

    Raises:
        LibraryError: There is one.
    """
    frame = (document.get("pre_tokenizer"), document.get("normalizer"))
    for part in _parts_of(frame):
        pattern = part.get("Regex")
        if isinstance(pattern, str) and repeats_choices(pattern):
            raise LibraryError(f"matching may never end: it repeats a group that varies, {excerpt(pattern)}")
    growth = 1
    for part in _parts_of(document.get("normalizer")):
        if part.get("type") == "Precompiled":
            raise LibraryError("its normalizer is not supported: Precompiled")
        if part.get("type") == "Replace":
            growth *= max(1, len(str(part.get("content"))))
    if growth > MOST_GROWTH:
        raise LibraryError(f"its normalizer can make a text {growth:,} times longer")


def _parts_of(value: Any) -> Iterator[dict[str, Any]]:
    """All objects within a value, which is nested as deep as JSON may be."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)


def repeats_choices(pattern: str) -> bool:
    """Return whether a regular expression repeats without end a group that can match in several ways.

    Such as `(a+)+` and `(a|aa)*`: on some texts, each character doubles the time.
    """
    varies = [False]
    for piece in PIECES.finditer(pattern):
        if piece["open"]:
            varies.append(False)
        elif piece["choice"]:
            varies[-1] = True
        elif piece["close"] and len(varies) > 1:
            inner = varies.pop()
            if inner and WITHOUT_END.match(pattern, piece.end()):
                return True
            varies[-1] |= inner
    return False
