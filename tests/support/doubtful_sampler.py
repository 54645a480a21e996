"""A sampler that is uncertain more often than any logits would make it."""

from dataclasses import replace

import mlx.core as mx

from metal_gen.sampling.draw_rule import Status
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import DRAWS_AFTER_A_MISS, Sampler


def doubtful_sampler(redrawn, wrong_by=1):
    """A sampler that draws a wrong token first, and reports it as uncertain, at every third draw.

    Args:
        redrawn: Gets the index of each token that was drawn again.
        wrong_by: What is added to the right token; 0 to be uncertain of the right one.
    """

    class Doubtful(Sampler):
        def draw(self, logits, index, allowed=None):
            draw = super().draw(logits, index, allowed)
            if index % 3 or index < self._whole_until - 1 - DRAWS_AFTER_A_MISS:
                return draw
            wrong = mx.array([(int(draw.token.item()) + wrong_by) % 64, Status.UNCERTAIN])
            return replace(draw, outcomes=wrong)

        def redraw(self, missed):
            redrawn.append(missed.index)
            return super().redraw(missed)

    return Doubtful


def two_texts(decoder, strategy, kind):
    """The tokens of a text of 13 and one of 8, in two slots, with samplers of a kind."""
    made = {}
    for number, count in ((0, 13), (1, 8)):
        prompt = [number + 1, 2, 3]
        sampler = kind(strategy, RandomKeys(5, number), prompt=prompt, capacity=64)
        made[decoder.begin(prompt, sampler, endings={}, max_tokens=count)] = []
    while decoder.in_use:
        for begun, token in decoder.step():
            made[begun].append(token.id)
    return list(made.values())
