"""The draws of the rows of a pass are those that the sampler makes one by one."""

import math
from dataclasses import replace

import mlx.core as mx
import pytest
from scripted_guide import ScriptedGuide, bits_of
from speculated import STRATEGIES, Oracle, decoder_for, guessed_text, plain_text, sampler_for

from metal_gen.sampling.allowed import Allowed
from metal_gen.speculation.row_draws import draw_rows

pytestmark = pytest.mark.metal

SOME, OTHERS = Allowed(bits_of([3, 9, 31], 64)), Allowed(bits_of([7, 8], 64))
# Another token may come instead, as before an answer that thinking may precede.
THINKING = Allowed(bits_of([3, 9, 31], 64), bits_of([40], 64))
PROMPT = [3, 17, 60, 8, 41, 22]


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


def one_of(tokens):
    """Every fourth time a single token."""
    return [5] if len(tokens) % 4 == 2 else [8, 9, 10 + len(tokens) % 9]


@pytest.mark.parametrize("rows_apart", [True, False], ids=["apart", "together"])
def test_a_token_that_alone_is_allowed_comes_whatever_bans_it(tiny_model, make_cache, rows_apart):
    """It may be a guess, and guesses go on after it."""
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=90))
    strategy = replace(STRATEGIES["sampled"], logit_bias=((5, -math.inf),))
    expected = plain_text(
        decoder, PROMPT, sampler_for(PROMPT, strategy), most=33, guide=ScriptedGuide(one_of)
    )
    assert [token for token, *_ in expected][2::4] == [5] * 8
    source = Oracle([token for token, *_ in expected], wrong=[3, 10])
    found, _ = guessed_text(
        decoder, PROMPT, sampler_for(PROMPT, strategy), source, most=33, guide=ScriptedGuide(one_of),
        rows_apart=rows_apart,
    )  # fmt: skip
    assert found == expected
