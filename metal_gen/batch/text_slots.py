"""The interface that generates the texts of rows: the slots of a batch, or a single one with guesses."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from metal_gen.engine.generator import GeneratedToken
from metal_gen.engine.guide import TokenGuide
from metal_gen.engine.slots.slot_text import SlotText
from metal_gen.engine.stopping import FinishDetail
from metal_gen.errors import MetalGenError
from metal_gen.models.transformer import Transformer
from metal_gen.sampling.sampler import Sampler


class TextSlots(Protocol):
    """Slots that generate a text each. `SlotDecoder` is one kind; its methods say more.

    Attributes:
        model: The model.
        slot_passes: Number of slots, summed over all passes.
        busy_slot_passes: Number of slots that worked on a text, summed over all passes.
    """

    model: Transformer
    slot_passes: int
    busy_slot_passes: int

    @property
    def in_use(self) -> int:
        """Number of slots that hold an unfinished text."""

    @property
    def has_free_slot(self) -> bool:
        """Whether another text can begin."""

    @property
    def capacity(self) -> int:
        """Number of tokens that a slot holds."""

    def position(self, text: SlotText) -> int:
        """Return the number of cache positions that a text uses."""

    def begin(
        self,
        prompt: Sequence[int],
        sampler: Sampler,
        *,
        endings: Mapping[int, FinishDetail],
        max_tokens: int | None = None,
        guide: TokenGuide | None = None,
    ) -> SlotText:
        """Give a text a slot. The next steps compute its prompt."""

    def end(self, text: SlotText) -> None:
        """Free the slot of a text."""

    def step(self) -> list[tuple[SlotText, GeneratedToken | MetalGenError]]:
        """Return the next tokens of texts, or the error why there is none, which ends a text."""
