"""What an output was made of: enough of an input to know later which of its lines are others.

Lines are told apart by short digests. Those of many lines are combined, so that their number stays small
however long an input is: of a change in it no more than the group of lines is known then.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from io import BufferedIOBase
from itertools import islice

from metal_gen.batch.input.stream import UNREADABLE, InputStream
from metal_gen.errors import UsageError

MOST_GROUPS = 1024
MOST_LINES = 2**53
MOST_RANGES_SAID = 5
DIGEST_BYTES = 8
DIGITS = 2 * DIGEST_BYTES
PIECE_BYTES = 2**16


@dataclass(frozen=True)
class InputMark:
    """An input as it was.

    Attributes:
        lines: How many there were, blank ones included.
        group_lines: How many have a digest together.
        groups: Digests of the groups; the last may have fewer lines.
    """

    lines: int
    group_lines: int
    groups: tuple[int, ...]

    @property
    def document(self) -> dict[str, object]:
        """As JSON holds it."""
        digests = "".join(f"{digest:0{DIGITS}x}" for digest in self.groups)
        return {"lines": self.lines, "group_lines": self.group_lines, "digests": digests}


def mark_from(document: object) -> InputMark | None:
    """Read what a mark wrote; None for null.

    Raises:
        ValueError: It is no mark.
    """
    if document is None:
        return None
    if not isinstance(document, Mapping) or document.keys() != {"lines", "group_lines", "digests"}:
        raise ValueError
    lines, group_lines, digests = document["lines"], document["group_lines"], document["digests"]
    if type(lines) is not int or type(group_lines) is not int or not isinstance(digests, str):
        raise ValueError
    if not 0 <= lines <= MOST_LINES or not 1 <= group_lines <= MOST_LINES:
        raise ValueError
    count = -(-lines // group_lines)
    if count > MOST_GROUPS or len(digests) != count * DIGITS:
        raise ValueError
    places = range(0, len(digests), DIGITS)
    return InputMark(lines, group_lines, tuple(int(digests[place : place + DIGITS], 16) for place in places))


def mark_input(input: InputStream) -> InputMark:
    """Read an input from its beginning to its end.

    Raises:
        UsageError: It cannot be read.
    """
    lines, group_lines, groups = 0, 1, list[int]()
    for digest in _line_digests(input):
        if lines == MOST_GROUPS * group_lines:
            groups = [one ^ other for one, other in zip(groups[::2], groups[1::2], strict=True)]
            group_lines *= 2
        if lines == len(groups) * group_lines:
            groups.append(0)
        groups[-1] ^= digest
        lines += 1
    return InputMark(lines, group_lines, tuple(groups))


def what_changed(input: InputStream, begun: InputMark) -> str | None:
    """Compare an input with what it was; lines may have been added at its end.

    Returns:
        Which lines differ, in words; None where none does.

    Raises:
        UsageError: It cannot be read.
    """
    groups = [0] * len(begun.groups)
    lines = 0
    for digest in islice(_line_digests(input), begun.lines):
        groups[lines // begun.group_lines] ^= digest
        lines += 1
    if lines < begun.lines:
        # Of a group that is not whole nothing can be said.
        groups = groups[: lines // begun.group_lines]
    ranges: list[tuple[int, int]] = []
    for place, digest in enumerate(groups):
        if digest == begun.groups[place]:
            continue
        first, last = place * begun.group_lines + 1, min((place + 1) * begun.group_lines, begun.lines)
        if ranges and ranges[-1][1] == first - 1:
            first = ranges.pop()[0]
        ranges.append((first, last))
    said = [_said(ranges, are_exact=begun.group_lines == 1)] if ranges else []
    if lines < begun.lines:
        said.append(f"it had {begun.lines:,} {_noun(begun.lines)}, and has {lines:,}")
    return "; ".join(said) or None


def _said(ranges: list[tuple[int, int]], *, are_exact: bool) -> str:
    words = [f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last in ranges]
    shown, more = words[:MOST_RANGES_SAID], len(words) - MOST_RANGES_SAID
    if more > 0:
        listed = f"{', '.join(shown)} and {more:,} more"
    else:
        listed = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    if not are_exact:
        return f"what differs is within lines {listed}"
    is_one = ranges[0][0] == ranges[-1][1]
    return f"line {listed} differs" if is_one else f"lines {listed} differ"


def _noun(count: int) -> str:
    return "line" if count == 1 else "lines"


def _line_digests(input: InputStream) -> Iterator[int]:
    try:
        yield from _digests(input.whole())
    except UNREADABLE as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"the input {input.name} cannot be read: {reason}") from None


def _digests(file: BufferedIOBase) -> Iterator[int]:
    number = 0
    digest = _new_digest(number)
    has_begun = False
    while piece := file.readline(PIECE_BYTES):
        # The last line may get its newline later.
        digest.update(piece.removesuffix(b"\n"))
        has_begun = True
        if piece.endswith(b"\n"):
            yield int.from_bytes(digest.digest(), "big")
            number += 1
            digest = _new_digest(number)
            has_begun = False
    if has_begun:
        yield int.from_bytes(digest.digest(), "big")


def _new_digest(number: int) -> blake2b:
    """Of a line, to which its number belongs: two that change places are others."""
    return blake2b(number.to_bytes(8, "big"), digest_size=DIGEST_BYTES)
