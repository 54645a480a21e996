"""What is expected to be allowed: what followed the last times, and nothing else."""

import mlx.core as mx
import pytest

from metal_gen.engine.expectations import (
    LEAST_SURE,
    MOST_PLACES,
    MOST_SURE,
    STEP_COST,
    Expectations,
    same_tokens,
)
from metal_gen.sampling.allowed import Allowed


def some():
    return Allowed(mx.array([[7]], mx.uint32))


ONE, OTHER, THIRD = some(), some(), some()


def noted(*pairs):
    made = Expectations()
    for before, after in pairs:
        made.note(before, after)
    return made


def repeated(made, count, after=ONE, **kind):
    for _ in range(count):
        made.note(ONE, after, **kind)


def test_what_came_twice_in_turn_is_expected():
    assert Expectations().after(ONE) is None
    assert noted((ONE, OTHER)).after(ONE) is None
    expected = noted((ONE, OTHER), (ONE, OTHER)).after(ONE)
    assert expected.allowed.tokens is OTHER.tokens
    assert not expected.is_forced
    assert not expected.is_sure
    assert noted((ONE, OTHER), (ONE, OTHER)).after(OTHER) is None


def test_something_else_in_between_leaves_it_open():
    assert noted((ONE, OTHER), (ONE, OTHER), (ONE, THIRD)).after(ONE) is None
    made = noted((ONE, OTHER), (ONE, OTHER), (ONE, THIRD), (ONE, THIRD))
    assert made.after(ONE).allowed.tokens is THIRD.tokens


def test_all_tokens_may_be_expected():
    made = noted((None, None), (None, None), (ONE, None), (ONE, None))
    assert made.after(None).allowed is None
    assert made.after(ONE).allowed is None


def test_forced_tokens_may_be_expected():
    made = Expectations()
    repeated(made, 2, None, is_forced=True)
    assert made.after(ONE).is_forced
    made.note(ONE, None)
    made.note(ONE, None)
    assert not made.after(ONE).is_forced


@pytest.mark.parametrize("place", range(2))
def test_nothing_is_expected_where_thinking_may_begin(place):
    pair = [ONE, ONE]
    pair[place] = Allowed(ONE.tokens, OTHER.tokens)
    made = noted(*[tuple(pair)] * 3)
    assert made.after(ONE) is None
    assert made.after(Allowed(ONE.tokens, OTHER.tokens)) is None


def test_equal_bits_of_another_array_are_something_else():
    assert not same_tokens(ONE, some())
    assert same_tokens(ONE, Allowed(ONE.tokens))
    assert same_tokens(None, None)
    assert not same_tokens(ONE, None)
    assert not same_tokens(Allowed(ONE.tokens, OTHER.tokens), Allowed(ONE.tokens, OTHER.tokens))
    assert noted((ONE, OTHER), (ONE, some())).after(ONE) is None
    assert noted((ONE, OTHER), (ONE, OTHER)).after(some()) is None


def test_a_long_run_is_sure():
    made = Expectations()
    repeated(made, LEAST_SURE)
    assert not made.after(ONE).is_sure
    repeated(made, 1)
    assert made.after(ONE).is_sure


def sure_after(made):
    """How often the same has to come again before it is sure."""
    for count in range(1, 2 * MOST_SURE):
        made.note(ONE, ONE)
        expected = made.after(ONE)
        if expected is not None and expected.is_sure:
            return count - 1
    return None


def test_short_runs_are_sure_later_and_long_ones_sooner():
    made, needed = Expectations(), [LEAST_SURE]
    for _ in range(6):
        assert sure_after(made) == needed[-1]
        made.note(ONE, OTHER)
        needed.append(min(2 * needed[-1], MOST_SURE))
    assert needed[-1] == MOST_SURE
    for _ in range(6):
        assert sure_after(made) == needed[-1]
        repeated(made, STEP_COST)
        made.note(ONE, OTHER)
        needed.append(max(needed[-1] // 2, LEAST_SURE))
    assert needed[-1] == LEAST_SURE


def test_runs_that_were_never_sure_teach_nothing():
    made = Expectations()
    for _ in range(5):
        repeated(made, LEAST_SURE)
        made.note(ONE, OTHER)
    assert sure_after(made) == LEAST_SURE


def test_the_end_of_a_run_of_forced_tokens_teaches_nothing():
    made = Expectations()
    repeated(made, LEAST_SURE + 1, None, is_forced=True)
    assert sure_after(made) == LEAST_SURE


def test_forced_tokens_are_likely_where_they_came_often():
    made = Expectations()
    assert not made.may_be_forced(ONE)
    for _ in range(3):
        repeated(made, 11)
        made.note(ONE, None, is_forced=True)
        assert not made.may_be_forced(ONE)
    for _ in range(6):
        repeated(made, 3)
        made.note(ONE, None, is_forced=True)
    assert made.may_be_forced(ONE)
    assert not made.may_be_forced(OTHER)
    repeated(made, 16)
    assert not made.may_be_forced(ONE)


def test_places_are_few_and_keep_their_arrays():
    made = Expectations()
    for _ in range(3 * MOST_PLACES):
        # Arrays that nobody else holds; MLX may put the next one at the same address.
        made.note(some(), ONE)
    assert len(made._places) == MOST_PLACES
    assert made.after(some()) is None
    repeated(made, 2)
    for _ in range(MOST_PLACES - 1):
        made.note(some(), ONE)
    assert made.after(ONE) is not None
    made.note(some(), ONE)
    assert made.after(ONE) is None
