"""Guesses from the text itself: what followed the last time that the same tokens came.

Summaries, edits, extraction and code repeat what is in the prompt. A table finds the last place where the
text had the same 8 tokens, or the same 4, as it has now. All memory is allocated once, for the size of the
cache.

Source: Prompt Lookup Decoding (https://github.com/apoorvumang/prompt-lookup-decoding).
"""

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.models.transformer import Transformer
from metal_gen.speculation.depth import LOOKUP_GUESSES
from metal_gen.speculation.planned import GuessMemory
from metal_gen.speculation.source import DrawGuess, Guesses, Room
from metal_gen.take_back import MOST_TAKEN_BACK, Recent

LONG_KEY, SHORT_KEY = 8, 4
LONG, SHORT = f"lookup {LONG_KEY}", f"lookup {SHORT_KEY}"
KEYS = ((LONG_KEY, LONG), (SHORT_KEY, SHORT))
NUMBER_BYTES = 4
MOST_SLOTS_PER_TOKEN = 4
NOWHERE = 0


class _Places:
    """For each key of a length, the place after its last occurrence, in a table of fixed size.

    Two keys may share a slot, so what is found must be compared with the text.
    """

    def __init__(self, length: int, capacity: int) -> None:
        self.length = length
        self._mask = (1 << (2 * capacity - 1).bit_length()) - 1
        self._slots = array("i", [NOWHERE]) * (self._mask + 1)

    def replace(self, key: bytes, place: int) -> tuple[int, int]:
        """Set the place after a key. Return its slot, and what the slot had."""
        slot = zlib.crc32(key) & self._mask
        before = self._slots[slot]
        self._slots[slot] = place
        return slot, before

    def restore(self, slot: int, place: int) -> None:
        """Undo `replace`."""
        self._slots[slot] = place

    def clear(self) -> None:
        """Forget all places."""
        self._slots = array("i", [NOWHERE]) * (self._mask + 1)


@dataclass(frozen=True)
class _Added:
    """What an addition has changed: slots as they were, and where the text might have gone on before."""

    slots: list[tuple[_Places, int, int]]
    found: list[int]


class Lookup:
    """See `GuessSource`.

    Args:
        capacity: Number of tokens in the cache. One more can follow them.
    """

    name = "lookup"
    needs_hidden = False

    def __init__(self, capacity: int) -> None:
        self._text = array("i", [0]) * (capacity + 1)
        self._length = 0
        self._tables = [_Places(length, capacity + 1) for length, _ in KEYS]
        # Where the text may go on as before, by kind.
        self._found = [NOWHERE] * len(KEYS)
        self._recent: Recent[_Added] = Recent()

    def begin(self, prompt: Sequence[int], kept: int) -> None:
        """See `GuessSource`."""
        for table in self._tables:
            table.clear()
        self._length, self._recent = 0, Recent()
        self._found = [NOWHERE] * len(KEYS)
        for token in prompt:
            self._add(token)

    def prefilled(self, hidden: mx.array) -> None:
        """Do nothing: hidden states are not needed."""

    def guess(self, room: Room, draw: DrawGuess) -> Guesses | None:
        """See `GuessSource`."""
        for (_, kind), place in zip(KEYS, self._found, strict=True):
            if place != NOWHERE and (count := room(kind)):
                # Text that ends with what is repeated goes on from its beginning.
                period = self._length - place
                return Guesses([self._text[place + step % period] for step in range(count)], kind)
        return None

    def accepted(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """See `GuessSource`."""
        for token in tokens:
            self._add(token)

    def take_back(self, count: int) -> None:
        """See `GuessSource`."""
        if count > MOST_TAKEN_BACK:
            self.begin(self._text[: self._length - count], 0)
            return
        for _ in range(count):
            added = self._recent.take_back(1, _Added([], self._found))
            for table, slot, place in added.slots:
                table.restore(slot, place)
            self._found = added.found
            self._length -= 1

    def _add(self, token: int) -> None:
        """Add a token, and find where the text had the same tokens as it has now."""
        text, added = self._text, _Added([], self._found)
        text[self._length] = token
        self._length += 1
        self._found = [NOWHERE] * len(KEYS)
        for number, table in enumerate(self._tables):
            begin = self._length - table.length
            if begin < 0:
                continue
            key = text[begin : self._length].tobytes()
            slot, place = table.replace(key, self._length)
            added.slots.append((table, slot, place))
            followed = added.found[number]
            # A run goes on where it is, even if the same tokens have come again since.
            if followed != NOWHERE and text[followed] == token:
                self._found[number] = followed + 1
            elif place != NOWHERE and text[place - table.length : place].tobytes() == key:
                self._found[number] = place
        self._recent.keep(added)


@dataclass(frozen=True)
class PlannedLookup:
    """See `PlannedSource`.

    Args:
        most_guesses: Most guesses in a pass; None for the usual number.
    """

    most_guesses: int | None

    @property
    def memory(self) -> GuessMemory:
        """See `PlannedSource`."""
        slots = MOST_SLOTS_PER_TOKEN * len(KEYS)
        return GuessMemory(0, NUMBER_BYTES * (slots + 1), self.most_guesses or LOOKUP_GUESSES)

    def load(self, target: Transformer, capacity: int) -> Lookup:
        """See `PlannedSource`."""
        return Lookup(capacity)
