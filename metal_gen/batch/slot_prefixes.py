"""The prefix cache of a batch: a row's prompt may begin with what an earlier run has stored."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import mlx.core as mx

from metal_gen.cache.slots import SlotCache
from metal_gen.cache.stored_text import StoredArray
from metal_gen.engine.slots.slot_text import SlotText
from metal_gen.generation.loading import TextModel
from metal_gen.generation.prefixes.reuse import open_prefix_cache
from metal_gen.prefix_cache.entry import bytes_of
from metal_gen.text.encoded_prompt import Prompt

# Prefixes that one run stores, so that rows which all begin differently do not fill the disk.
MOST_STORED = 4
# Rows whose beginnings later runs know, too. Writing them takes as long as a few tokens.
MOST_REMEMBERED = 16


@dataclass(frozen=True)
class _Slot:
    """One slot, as the prefix cache fills and reads it."""

    slots: SlotCache
    text: SlotText
    can_be_cut: bool = True

    def layout(self, length: int) -> list[StoredArray]:
        return self.slots.cache.layout(length)

    def restore(self, length: int, arrays: Iterable[mx.array]) -> None:
        self.slots.restore(self.text.slot, self.text.shareable, length, arrays)

    def stored(self, length: int) -> Iterator[mx.array]:
        return self.slots.stored(self.text.slot, length)

    def clear(self) -> None:
        self.slots.positions[self.text.slot] = 0
        self.slots.forget(self.text.slot)


class SlotPrefixes:
    """Fills slots from the prefix cache, and stores what rows have in common.

    Args:
        model: The model, with the settings of the run.
        slots: The slots.
    """

    def __init__(self, model: TextModel, slots: SlotCache) -> None:
        self._slots = slots
        self._prefixes = open_prefix_cache(model.checkpoint, model.settings, model.plan, stride=slots.stride)
        self._boundaries: dict[SlotText, int] = {}
        self._stored = self._rows = 0

    def take_notices(self) -> tuple[str, ...]:
        """Return what a person should know and was not told yet."""
        return tuple(self._prefixes.take_notices())

    def begin(self, text: SlotText, prompt: Prompt) -> int:
        """Fill the slot of a new text, unless a slot holds as much of its prompt.

        Returns:
            Number of prompt tokens that came from the disk.
        """
        if not text.shareable or text.is_over:
            return 0
        slot = _Slot(self._slots, text)
        self._boundaries[text] = self._prefixes.boundary(prompt)
        self._rows += 1
        self._prefixes.remember(prompt, saves=self._rows <= MOST_REMEMBERED)
        held = self._slots.positions[text.slot] + self._slots.extend(text.slot, text.shareable)
        found = self._prefixes.find(prompt, slot)
        if found is not None and found.tokens > held and self._prefixes.fill(found, slot):
            return found.tokens
        return 0

    def first_token(self, text: SlotText, prompt: Prompt) -> None:
        """Store the prefix of a text whose prompt is in its slot, if it is worth storing."""
        boundary = self._boundaries.pop(text, 0)
        ids = prompt.ids[:boundary]
        if not boundary or self._stored == MOST_STORED or self._prefixes.is_stored(ids):
            return
        slot = _Slot(self._slots, text)
        writer = self._prefixes.begin_entry(ids, slot)
        if writer is None:
            return
        self._stored += 1
        try:
            for array in slot.stored(boundary):
                writer.add(bytes_of(array))
        except OSError as error:
            self._prefixes.note_failure(error)
        else:
            self._prefixes.end_entry(writer, ids, slot)
