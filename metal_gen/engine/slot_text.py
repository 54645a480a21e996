"""A text in a slot, and how far it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from metal_gen.engine.stopping import FinishDetail
from metal_gen.sampling.sampler import Draw, Sampler


@dataclass(eq=False)
class SlotText:
    """A text in a slot.

    Attributes:
        slot: Where.
        prompt: Its token ids.
        shareable: The same where other prompts may share it; empty where its positions turn otherwise than
            those of shorter ones.
        sampler: Draws its tokens.
        endings: Tokens that end it, and what to call that.
        limit: Most new tokens.
        limited_by: What to call that end.
        draw: The last token, computed or not; None while the prompt is not in the cache.
        is_over: It has ended.
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
