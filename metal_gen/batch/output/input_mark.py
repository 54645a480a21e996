"""A digest of an input, detailed enough to tell later which of its lines have changed.

Each line has a short digest. The digests of many lines are combined into groups, so that a mark stays small
for any input; it then locates a change only to within a group of lines.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from io import BufferedIOBase
from itertools import islice

from metal_gen.batch.input.stream import UNREADABLE, InputStream
from metal_gen.errors import UsageError

# Up to this many lines, changes are known line by line.
MOST_GROUPS = 2**14
MOST_LINES = 2**53
MOST_RANGES_SAID = 5
DIGEST_BYTES = 8
DIGITS = 2 * DIGEST_BYTES
PIECE_BYTES = 2**16


@dataclass(frozen=True)
class InputMark:
    """The digests of an input.

    Attributes:
        lines: Number of lines, blank ones included.
        group_lines: Number of lines per digest.
        groups: Digests of the groups; the last group may have fewer lines.
    """

    lines: int
    group_lines: int
    groups: tuple[int, ...]

    @property
    def document(self) -> dict[str, object]:
        """The mark as a JSON object."""
        digests = "".join(f"{digest:0{DIGITS}x}" for digest in self.groups)
        return {"lines": self.lines, "group_lines": self.group_lines, "digests": digests}


def mark_from(document: object) -> InputMark | None:
    """Read a mark from its JSON object; null gives None.

    Raises:
        ValueError: The value is not a mark.
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
    """Return the mark of a whole input.

    Raises:
        UsageError: The input cannot be read.
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


def what_changed(
    input: InputStream, begun: InputMark, *, may_differ: Collection[int] = frozenset()
) -> str | None:
    """Compare an input with its earlier mark; lines added at its end do not count as a change.

    Args:
        input: The input as it is.
        begun: Its earlier mark.
        may_differ: Numbers of lines, from 1, whose change does not count.

    Returns:
        The lines that differ, as a phrase; None if none does, or certainly none but those that may.

    Raises:
        UsageError: The input cannot be read.
    """
    groups = [0] * len(begun.groups)
    lines = 0
    for digest in islice(_line_digests(input), begun.lines):
        groups[lines // begun.group_lines] ^= digest
        lines += 1
    if lines < begun.lines:
        # An incomplete group cannot be compared.
        groups = groups[: lines // begun.group_lines]
    ranges: list[tuple[int, int]] = []
    for place, digest in enumerate(groups):
        first, last = place * begun.group_lines + 1, min((place + 1) * begun.group_lines, begun.lines)
        if digest == begun.groups[place] or all(line in may_differ for line in range(first, last + 1)):
            continue
        if ranges and ranges[-1][1] == first - 1:
            first = ranges.pop()[0]
        ranges.append((first, last))
    said = [_said(ranges, are_exact=begun.group_lines == 1)] if ranges else []
    if lines < begun.lines:
        said.append(f"it had {begun.lines:,} {_noun(begun.lines)} and now has {lines:,}")
    return "; ".join(said) or None


def _said(ranges: list[tuple[int, int]], *, are_exact: bool) -> str:
    words = [f"{first:,}" if first == last else f"{first:,} to {last:,}" for first, last in ranges]
    shown, more = words[:MOST_RANGES_SAID], len(words) - MOST_RANGES_SAID
    if more > 0:
        listed = f"{', '.join(shown)} and {more:,} more"
    else:
        listed = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    if not are_exact:
        return f"the difference is within lines {listed}"
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
        # The last line may receive its newline later.
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
    """Start the digest of a line; it includes the line number, so that swapped lines count as changed."""
    return blake2b(number.to_bytes(8, "big"), digest_size=DIGEST_BYTES)
