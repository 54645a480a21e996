"""The state of a text in a slot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metal_gen.engine.stopping import FinishDetail
from metal_gen.sampling.sampler import Draw, Sampler


@dataclass(eq=False)
class SlotText:
    """A text in a slot, and its progress.

    Attributes:
        slot: Index of the slot.
        prompt: Token ids of the prompt.
        shareable: The prompt if other prompts may share its keys and values; empty if its positions
            rotate differently from those of shorter prompts.
        sampler: Sampler that draws its tokens.
        endings: Tokens that end it, and the reason for each.
        limit: Maximum number of new tokens.
        limited_by: Reason to report when the limit is reached.
        draw: Draw of the last token, computed or not; None until the prompt is in the cache.
        is_over: Whether it has ended.
    """

    slot: int
    prompt: Sequence[int]
    shareable: Sequence[int]
    sampler: Sampler
    endings: Mapping[int, FinishDetail]
    limit: int
    limited_by: FinishDetail
    draw: Draw | None = None
    is_over: bool = False

    @property
    def is_last(self) -> bool:
        """Whether no token may follow the last one."""
        return self.draw is not None and self.draw.index + 1 == self.limit
