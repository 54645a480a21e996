"""Guesses from the text itself: what followed the last time that the same tokens came.

Summaries, edits, extraction and code repeat what is in the prompt. A table finds the last place where the
text had the same 8 tokens, or the same 4, as it has now. Where a long repetition breaks off, as at a word
that an edit changes, it goes on as soon as a token comes that follows soon after the break. Its memory is
fixed by the size of the cache.

Source: Prompt Lookup Decoding (https://github.com/apoorvumang/prompt-lookup-decoding).
"""

import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

from metal_gen.models.transformer import Transformer
from metal_gen.speculation.depth import LOOKUP_GUESSES
from metal_gen.speculation.planned import GuessMemory
from metal_gen.speculation.source import GuessDraw, Guesses, Room, RunningPass, Wanted
from metal_gen.take_back import Recent

LONG_KEY, SHORT_KEY = 8, 4
LONG, SHORT, RESUMED = f"lookup {LONG_KEY}", f"lookup {SHORT_KEY}", "lookup resumed"
KEYS = (LONG_KEY, SHORT_KEY)
KINDS = (LONG, SHORT, RESUMED)
# Tokens after a break among which a repetition may go on, and new tokens for which that is looked for.
NEAR_TOKENS, PATIENCE = 12, 12
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


class _Added(NamedTuple):
    """What an addition has changed: slots as they were, and the state before.

    Attributes:
        slots: Table, slot and place of each slot that was replaced.
        found: Where the text might have gone on as before, by kind.
        long: Where a long repetition might go on, and for how many more tokens that is looked for.
    """

    slots: list[tuple[_Places, int, int]]
    found: list[int]
    long: tuple[int, int]


class Lookup:
    """See `GuessSource`.

    Args:
        capacity: Number of tokens in the cache. One more can follow them.
    """

    name = "lookup"
    needs_hidden = False

    def __init__(self, capacity: int) -> None:
        self._text = array("i", [0]) * (capacity + 1)
        self._length = self._prompt_length = 0
        self._tables = [_Places(length, capacity + 1) for length in KEYS]
        self._found = [NOWHERE] * len(KINDS)
        self._long = NOWHERE, 0
        self._recent: Recent[_Added] = Recent()

    @property
    def compiled_count(self) -> int:
        """See `GuessSource`."""
        return 0

    def begin(self, prompt: Sequence[int], kept: int) -> None:
        """See `GuessSource`."""
        for table in self._tables:
            table.clear()
        self._length = 0
        self._found, self._long = [NOWHERE] * len(KINDS), (NOWHERE, 0)
        for token in prompt:
            self._add(token)
        self._prompt_length = self._length
        if self._found[0] != NOWHERE:
            self._long = self._found[0], PATIENCE
        self._recent = Recent()

    def prefilled(self, hidden: mx.array) -> None:
        """Do nothing: hidden states are not needed."""

    def expects(self, wanted: Wanted) -> bool:
        """See `GuessSource`."""
        found = self._found
        return any(found) and any(place and wanted(kind) for kind, place in zip(KINDS, found, strict=True))

    def guess(self, room: Room, draw: GuessDraw) -> Guesses | None:
        """See `GuessSource`."""
        for kind, place in zip(KINDS, self._found, strict=True):
            if place != NOWHERE and (count := room(kind)):
                # Text that ends with what is repeated goes on from its beginning.
                period = self._length - place
                return Guesses([self._text[place + step % period] for step in range(count)], kind)
        return None

    def guess_after(self, running: RunningPass, choose: Room) -> None:
        """Do nothing: guesses need the tokens."""

    def accepted(self, tokens: Sequence[int], hidden: mx.array | None) -> None:
        """See `GuessSource`."""
        for token in tokens:
            added = self._add(token)
            self._resume(added.found[-1], token)
            self._recent.keep(added)

    def take_back(self, count: int) -> None:
        """See `GuessSource`."""
        if not 0 <= count <= self._length - self._prompt_length:
            raise ValueError(f"cannot take back {count} of {self._length - self._prompt_length} tokens")
        if count > len(self._recent):
            text = self._text[: self._length - count]
            self.begin(text[: self._prompt_length], 0)
            self.accepted(text[self._prompt_length :], None)
            return
        for _ in range(count):
            added = self._recent.take_back(1, _Added([], self._found, self._long))
            for table, slot, place in added.slots:
                table.restore(slot, place)
            self._found, self._long = added.found, added.long
            self._length -= 1

    def end_text(self) -> None:
        """Do nothing: no guesses are made ahead."""

    def _add(self, token: int) -> _Added:
        """Add a token, and find where the text had the same tokens as it has now."""
        text, before, found = self._text, self._found, [NOWHERE] * len(KINDS)
        text[self._length] = token
        self._length = end = self._length + 1
        added = _Added([], before, self._long)
        for number, table in enumerate(self._tables):
            if (begin := end - table.length) < 0:
                continue
            key = text[begin:end].tobytes()
            slot, place = table.replace(key, end)
            added.slots.append((table, slot, place))
            followed = before[number]
            # A run goes on where it is, even if the same tokens have come again since.
            if followed != NOWHERE and text[followed] == token:
                found[number] = followed + 1
            elif place != NOWHERE and text[place - table.length : place].tobytes() == key:
                found[number] = place
        self._found = found
        return added

    def _resume(self, resumed: int, token: int) -> None:
        """Go on with a long repetition that broke off, if this token comes soon after the break.

        That is tried once. Where its first guess is right, what was resumed counts as a long repetition too.

        Args:
            resumed: Where a resumed repetition might have gone on before this token.
            token: The last token.
        """
        text, found, (place, left) = self._text, self._found, self._long
        if found[0] != NOWHERE:
            self._long = found[0], PATIENCE
        elif resumed != NOWHERE and text[resumed] == token:
            found[-1] = resumed + 1
            self._long = resumed + 1, PATIENCE
        elif left == 0:
            return
        elif any(found):
            self._long = NOWHERE, 0
        else:
            end = min(place + NEAR_TOKENS, self._length - 1)
            near = next((at for at in range(place, end) if text[at] == token), NOWHERE)
            self._long = place, left - 1
            if near != NOWHERE:
                found[-1], self._long = near + 1, (NOWHERE, 0)


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

    def load(self, target: Transformer, capacity: int, *, ahead_bytes: int | None = None) -> Lookup:
        """See `PlannedSource`."""
        return Lookup(capacity)
