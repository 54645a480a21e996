"""The state of a text in a slot."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from metal_gen.engine.generator import GeneratedToken
from metal_gen.engine.guide import TextBounds
from metal_gen.sampling.draw_rule import Draw
from metal_gen.sampling.sampler import Sampler


@dataclass(eq=False)
class SlotText:
    """A text in a slot, and its progress.

    Attributes:
        slot: Index of the slot.
        prompt: Token ids of the prompt, and of what the text must begin with, unless that is in `forced`.
        shareable: The prompt if other prompts may share its keys and values; empty if its positions
            rotate differently from those of shorter prompts.
        sampler: Sampler that draws its tokens.
        bounds: What ends the text, and its guide.
        draw: Draw of the last token, computed or not; None until the prompt is in the cache.
        tokens: Number of new tokens so far, drawn or forced.
        forced: Forced tokens after the draw, or after the prompt, that are not in the cache yet.
        is_over: Whether it has ended.
    """

    slot: int
    prompt: Sequence[int]
    shareable: Sequence[int]
    sampler: Sampler
    bounds: TextBounds
    draw: Draw | None = None
    tokens: int = 0
    forced: list[int] = field(default_factory=list)
    is_over: bool = False

    @property
    def is_last(self) -> bool:
        """Whether no token may follow the last one."""
        return self.tokens == self.bounds.limit

    def take(self, draw: Draw) -> None:
        """Set the draw of the next token."""
        self.draw, self.tokens = draw, draw.index + 1

    def take_forced(self) -> list[GeneratedToken]:
        """Add the tokens that must come next."""
        taken = self.bounds.take_forced(self.tokens)
        self.forced = [each.id for each in taken]
        self.tokens += len(taken)
        return taken
