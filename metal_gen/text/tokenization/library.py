"""The `tokenizers` library: builds its tokenizers, and converts all of its errors into one type.

A tokenizer.json may contain the state of another program's session, regular expressions that never end, and
rules that make a text a million times longer. The first is ignored, and the others are refused.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from metal_gen.excerpt import excerpt

# Raised by the compiled part of the library. It is not an Exception.
PANIC = "PanicException"
# The library stops a match after ten million steps, so a run of this many equal characters is too long.
LONGEST_RUN = 8_000_000
RUN = re.compile(rf"\s{{{LONGEST_RUN}}}")
MOST_GROWTH = 100
# Parts of a regular expression: escapes and classes, which are skipped; groups; and operators with a choice.
PIECES = re.compile(
    r"\\p\{[^}]*\}|\\.|\[\^?\]?(?:\\.|\[:[^\]]*:\]|[^\]\\])*\]|(?P<open>\()\??|(?P<close>\))|(?P<choice>[*+?|]"
    r"|\{\d*,\d*\})",
    re.DOTALL,
)
WITHOUT_END = re.compile(r"[*+]|\{\d+,\}")


class LibraryError(Exception):
    """The library cannot do something. The message continues a sentence after a colon."""


@contextmanager
def library_errors() -> Iterator[None]:
    """Convert errors of the library into a `LibraryError`."""
    try:
        yield
    except LibraryError:
        raise
    except Exception as error:  # The library raises no narrower type.
        raise LibraryError(excerpt(error)) from error
    except BaseException as error:
        if type(error).__name__ != PANIC:
            raise
        raise LibraryError(excerpt(error)) from None


def build_tokenizer(source: Path | str) -> Tokenizer:
    """Build a tokenizer that encodes a whole text, and nothing else.

    Args:
        source: A tokenizer.json, or its contents.

    Raises:
        LibraryError: The tokenizer cannot be built.
    """
    with library_errors():
        is_file = isinstance(source, Path)
        tokenizer = Tokenizer.from_file(str(source)) if is_file else Tokenizer.from_str(str(source))
        # A trainer may leave settings behind that truncate and pad texts, and drop merges at random.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if getattr(tokenizer.model, "dropout", None):
            tokenizer.model.dropout = None
        return tokenizer


def encode_text(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool) -> list[int]:
    """Encode a text.

    Args:
        tokenizer: Tokenizer of the library.
        text: Valid Unicode.
        add_special_tokens: Put a start token first, if the tokenizer has one.

    Raises:
        LibraryError: The text cannot be encoded.
    """
    if len(text) >= LONGEST_RUN and RUN.search(text):
        raise LibraryError(f"it has more than {LONGEST_RUN:,} whitespace characters in a row")
    with library_errors():
        ids: list[int] = tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids


def least_tokens(tokenizer: Tokenizer, beginning: str, uncertain: int) -> int:
    """Return the smallest number of tokens of any text that begins like this.

    Args:
        tokenizer: Tokenizer of the library.
        beginning: Valid Unicode.
        uncertain: Number of characters at its end that may become part of other tokens: the length of the
            longest added token. The two words before them are uncertain too.

    Raises:
        LibraryError: The text cannot be encoded.
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
    """Refuse regular expressions that may never end, and normalizers that make a text much longer.

    Raises:
        LibraryError: The tokenizer has one of them.
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
    """Yield all objects within a value, nested as deep as JSON may be."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)


def repeats_choices(pattern: str) -> bool:
    """Return whether a regular expression repeats, without a limit, a group that can match in several ways.

    Examples are `(a+)+` and `(a|aa)*`: on some texts, each character doubles the time.
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
