"""Compiled draws are those of the sampler."""

from itertools import product

import mlx.core as mx
import pytest
from scripted_guide import bits_of
from speculated import STRATEGIES, sampler_for

from metal_gen.bench.runners.step_graph import count_device_operations
from metal_gen.engine.generator import read_draw
from metal_gen.sampling.allowed import Allowed
from metal_gen.sampling.compiled_draws import CompiledDraws
from metal_gen.sampling.draw_rule import Status
from metal_gen.sampling.logprobs import read_logprobs
from metal_gen.sampling.sampler import DRAWS_AFTER_A_MISS
from metal_gen.sampling.strategy import SamplingStrategy

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

VOCABULARY = 64


@pytest.mark.parametrize(("name", "logprobs"), [*product(STRATEGIES, [None, 2])])
def test_draws_are_those_of_the_sampler(name, logprobs):
    draws = CompiledDraws()
    some, one = bits_of([3, 9, 31, 32, 63], VOCABULARY), bits_of([40], VOCABULARY)
    for index, bits in product(range(12), [None, Allowed(some), Allowed(one), Allowed(some, one)]):
        logits = 3 * mx.random.normal((1, VOCABULARY), key=mx.random.key(index))
        samplers = [sampler_for([5, 6], STRATEGIES[name], logprobs=logprobs) for _ in range(2)]
        found, expected = draws.draw(logits, samplers[0], index, bits), samplers[1].draw(logits, index, bits)
        assert found.outcomes.tolist() == expected.outcomes.tolist()
        assert (found.index, found.allowed is bits) == (index, True)
        again = samplers[0].redraw(found)
        assert again.outcomes.tolist() == samplers[1].redraw(expected).outcomes.tolist()
        if logprobs is not None:
            assert read_logprobs(found.logprobs) == read_logprobs(expected.logprobs)


def test_a_rule_is_compiled_once():
    draws, sampler = CompiledDraws(), sampler_for([5, 6], STRATEGIES["sampled"])
    logits, bits = mx.zeros((1, VOCABULARY)), Allowed(bits_of([3, 9], VOCABULARY))
    for index, allowed in [(0, None), (1, None), (2, bits), (3, bits), (4, None)]:
        mx.eval(draws.draw(logits, sampler, index, allowed).results)
    assert draws.count == 2


def test_the_whole_vocabulary_is_searched_in_a_compiled_function_once_candidates_have_often_missed():
    """Logits are so flat that no candidates are enough."""
    vocabulary, strategy = 20_000, SamplingStrategy(top_p=0.9)
    draws = CompiledDraws()
    ours, alone = (sampler_for([5, 6], strategy) for _ in range(2))
    counts = []
    for index in range(3 * DRAWS_AFTER_A_MISS):
        logits = 0.1 * mx.random.normal((1, vocabulary), key=mx.random.key(index))
        found, expected = draws.draw(logits, ours, index, None), alone.draw(logits, index)
        if read_draw(expected)[1] == Status.UNCERTAIN:
            assert read_draw(found)[1] == Status.UNCERTAIN
            found, expected = ours.redraw(found), alone.redraw(expected)
        assert read_draw(found) == read_draw(expected)
        counts.append(draws.count)
    assert counts[: DRAWS_AFTER_A_MISS + 1] == [1] * (DRAWS_AFTER_A_MISS + 1)
    assert counts[-1] == 2


@pytest.mark.parametrize("name", ["greedy", "sampled"])
def test_limits_add_few_operations(name):
    """Building the graph compiles nothing, so it is fused as on a GPU."""
    mx.enable_compile()
    draws, sampler = CompiledDraws(), sampler_for([5, 6], STRATEGIES[name])
    logits, bits = mx.zeros((1, 151_936), mx.bfloat16), Allowed(bits_of([3, 9], 151_936))
    free, limited = (
        count_device_operations(*draws.draw(logits, sampler, 0, allowed).results) for allowed in (None, bits)
    )
    # The mask, and where a temperature follows, the change to float32 before it.
    assert limited - free == (1 if name == "greedy" else 2)
