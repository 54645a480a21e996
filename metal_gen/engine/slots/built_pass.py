"""A pass over slots that has been built, and its rows."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from metal_gen.engine.slot_pass import NextToken, PromptPart
from metal_gen.engine.slots.slot_text import SlotText
from metal_gen.sampling.draw_rule import Draw
from metal_gen.sampling.sampler import Sampler


@dataclass
class BuiltPass:
    """A pass that has been built.

    Attributes:
        fed: Texts whose last tokens it adds to the cache.
        prefilled: Texts whose prompts it computes a part of.
        draws: Draws it makes, with their texts.
        undrawn: Texts with their logits, (1, V), that are drawn from after their guides have been asked.
        outputs: Arrays to compute and to wait for; none of the slots', which the pass after writes too.
        first: Arrays to compute before the others, which write to buffers that these read. Without the wait,
            MLX would copy the buffers.
    """

    fed: list[SlotText] = field(default_factory=list)
    prefilled: list[SlotText] = field(default_factory=list)
    draws: list[tuple[SlotText, Draw]] = field(default_factory=list)
    undrawn: list[tuple[SlotText, mx.array]] = field(default_factory=list)
    outputs: list[mx.array] = field(default_factory=list)
    first: list[mx.array] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to compute."""
        return not (self.outputs or self.fed or self.prefilled)

    def release(self) -> None:
        """Drop what has been computed: MLX copies buffers that are referred to when they are written."""
        self.outputs.clear()
        self.first.clear()

    def leave_undrawn(self, texts: Sequence[SlotText], logits: mx.array) -> None:
        """Keep logits (R, V), one row per text, until guides have been asked."""
        self.undrawn += [(text, logits[row : row + 1]) for row, text in enumerate(texts)]
        self.outputs.append(logits)

    def replace_draw(self, text: SlotText, draw: Draw) -> None:
        """Draw a token of a text again, in place of the token after it."""
        self.draws = [(other, later) for other, later in self.draws if other is not text]
        self.undrawn = [(other, row) for other, row in self.undrawn if other is not text]
        self.add_draw(text, draw)

    def add_draw(self, text: SlotText, draw: Draw) -> None:
        """Add the draw of a text's next token."""
        text.take(draw)
        self.draws.append((text, draw))
        self.outputs += draw.results


@dataclass
class PassRows:
    """Rows that go through the model together, and the rows among them that give a token."""

    periods: mx.array
    nexts: list[NextToken] = field(default_factory=list)
    parts: list[PromptPart] = field(default_factory=list)
    drawn: list[tuple[SlotText, int]] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.nexts) + sum(len(part.tokens) for part in self.parts)

    def apart(self) -> "list[PassRows]":
        """Split into next tokens and parts of prompts. Leave out a group that is empty."""
        count = len(self.nexts)
        prompts = PassRows(
            self.periods, [], self.parts, [(text, row - count) for text, row in self.drawn[count:]]
        )
        nexts = PassRows(self.periods, self.nexts, [], self.drawn[:count])
        return [rows for rows in (nexts, prompts) if rows.count]


def draw_places(texts: Sequence[SlotText]) -> tuple[list[Sampler], list[int]]:
    """Return the samplers of some texts, and the indices of their next tokens."""
    return [text.sampler for text in texts], [text.tokens for text in texts]
