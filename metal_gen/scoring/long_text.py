"""Encodes a text of any length in parts, because the tokenizer takes more than a hundred times a part's size.

The tokens are those of the whole text, as long as the text has lines or words of a usual length: a text is
only cut where no token of a byte-level BPE with a pattern like Qwen's can cross.
"""

import re
from collections.abc import Iterable, Iterator

from metal_gen.text.tokenizer import Tokenizer

# Characters of a part: a text is cut between the first and the second number.
SHORTEST_PART, LONGEST_PART = 1 << 15, 1 << 16
LINE_END = re.compile(r"\n(?=\S)")
# The end of a word: letters are joined to what comes before them, not to what follows.
WORD_END = re.compile("(?<=[^\\W\\d_])(?=[ .,;:!?\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f])")


def encode_parts(tokenizer: Tokenizer, pieces: Iterable[str]) -> Iterator[list[int]]:
    """Encode a text, with a start token if the tokenizer has one.

    Args:
        tokenizer: Tokenizer of the model.
        pieces: The text, cut anywhere.

    Raises:
        UsageError: The text cannot be encoded.
        CheckpointError: The text needs ids that the model does not have.
    """
    is_first = True
    for part in _parts(pieces):
        yield tokenizer.encode(part, add_special_tokens=is_first)
        is_first = False


def _parts(pieces: Iterable[str]) -> Iterator[str]:
    rest = ""
    for piece in pieces:
        rest += piece
        begin = 0
        while len(rest) - begin > LONGEST_PART:
            end = _cut(rest, begin + SHORTEST_PART, begin + LONGEST_PART)
            yield rest[begin:end]
            begin = end
        rest = rest[begin:]
    if rest:
        yield rest


def _cut(text: str, begin: int, end: int) -> int:
    """Return the last good place to cut between two places, or the second place if there is none."""
    for pattern in (LINE_END, WORD_END):
        place = max((found.end() for found in pattern.finditer(text, begin, end)), default=0)
        if place:
            return place
    return end
