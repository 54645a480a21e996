"""The tokens of several draws are joined, without an operation for each where they were made together."""

import mlx.core as mx
import pytest

from metal_gen.bench.runners.step_graph import count_primitives
from metal_gen.sampling.draw_rule import Draw
from metal_gen.sampling.together import join_tokens, split_draws

pytestmark = pytest.mark.metal

ROWS = 4


def made_together(first=10):
    outcomes = mx.array([*range(first, first + ROWS), *[0] * ROWS], mx.int32)
    return split_draws(mx.zeros((ROWS, 32)), outcomes, [0] * ROWS)


def test_rows_in_their_order_need_one_operation():
    draws = made_together()
    draws[1] = None
    joined = join_tokens(draws)
    assert count_primitives(joined) == 1
    assert [joined.tolist()[row] for row in (0, 2, 3)] == [10, 12, 13]


def test_other_orders_and_other_draws_are_joined_one_by_one():
    draws = made_together()
    alone = Draw(mx.zeros((1, 32)), 0, mx.array([7, 0], mx.int32), None)
    assert join_tokens(draws[::-1]).tolist() == [13, 12, 11, 10]
    assert join_tokens(draws[:2]).tolist() == [10, 11]
    assert join_tokens([alone, *draws[1:]]).tolist() == [7, 11, 12, 13]
    assert join_tokens([*made_together(20)[:2], *draws[2:]]).tolist() == [20, 21, 12, 13]
    joined = join_tokens([draws[3], None])
    assert (joined.shape, joined[0].item()) == ((2,), 13)


def test_a_row_has_the_logits_and_the_token_of_its_own():
    outcomes = mx.array([3, 5, 0, 1], mx.int32)
    logits = mx.arange(8.0).reshape(2, 4)
    first, second = split_draws(logits, outcomes, [4, 6])
    assert (first.logits.tolist(), second.logits.tolist()) == ([[0, 1, 2, 3]], [[4, 5, 6, 7]])
    assert (first.token.tolist(), second.token.tolist(), second.index) == ([3], [5], 6)
