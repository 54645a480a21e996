"""The draws of the rows of a pass are those that the sampler makes one by one."""

import mlx.core as mx
import pytest
from scripted_guide import bits_of
from speculated import STRATEGIES, sampler_for

from metal_gen.sampling.allowed import Allowed
from metal_gen.speculation.row_draws import draw_rows

pytestmark = pytest.mark.metal

SOME, OTHERS = Allowed(bits_of([3, 9, 31], 64)), Allowed(bits_of([7, 8], 64))
# Another token may come instead, as before an answer that thinking may precede.
THINKING = Allowed(bits_of([3, 9, 31], 64), bits_of([40], 64))


@pytest.mark.parametrize("name", ["greedy", "sampled", "penalties"])
@pytest.mark.parametrize(
    "allowed",
    [(), [SOME, OTHERS, SOME], [SOME, None, OTHERS], [THINKING, THINKING, SOME]],
    ids=["any", "some", "not all", "thinking"],
)
def test_rows_are_drawn_as_one_by_one(name, allowed):
    logits = 3 * mx.random.normal((3, 64), key=mx.random.key(7))
    guesses = mx.array([9, 7])
    together, alone = (sampler_for([5, 6], STRATEGIES[name]) for _ in range(2))
    tokens, statuses = draw_rows(logits, together, 4, guesses, allowed).read()
    for row in range(3):
        draw = alone.draw(logits[row : row + 1], 4 + row, allowed[row] if allowed else None)
        assert draw.outcomes.tolist() == [tokens[row], statuses[row]]
        alone.note(guesses[row : row + 1])
