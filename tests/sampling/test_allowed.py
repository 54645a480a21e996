"""Draws from some tokens alone: exactly what is left of the distribution, made whole again."""

import mlx.core as mx
import numpy as np
import pytest
from sampling_reference import probabilities

from metal_gen.engine.generator import read_draw
from metal_gen.sampling.allowed import Allowed, keep_allowed, word_count
from metal_gen.sampling.draw_rule import DrawRule, Status
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.sampling.together import draw_together

pytestmark = pytest.mark.metal

BIG = 40_011
STRATEGIES = [
    SamplingStrategy(temperature=0.0),
    SamplingStrategy(temperature=1.0),
    SamplingStrategy(temperature=1.5, top_k=7),
    SamplingStrategy(temperature=0.8, top_p=0.9),
    SamplingStrategy(temperature=1.2, min_p=0.05),
    SamplingStrategy(temperature=1.0, top_k=20, top_p=0.95),
]


def logits_of(vocabulary, seed=0):
    return (3 * np.random.RandomState(seed).standard_normal(vocabulary)).astype(np.float32)


def some(vocabulary, count, seed=1):
    return np.sort(np.random.RandomState(seed).choice(vocabulary, count, replace=False))


def bits(tokens, vocabulary):
    words = np.zeros(word_count(vocabulary), np.uint32)
    np.bitwise_or.at(words, tokens // 32, np.uint32(1) << (tokens % 32).astype(np.uint32))
    return mx.array(words[None])


def masked(logits, tokens):
    left = np.full_like(logits, -np.inf)
    left[tokens] = logits[tokens]
    return left


@pytest.mark.parametrize("vocabulary", [1, 31, 32, 33, 300, BIG])
def test_the_bits_are_those_of_the_tokens(vocabulary):
    logits, tokens = logits_of(vocabulary), some(vocabulary, 1 + vocabulary // 3)
    left = keep_allowed(mx.array(logits[None]), bits(tokens, vocabulary))
    assert np.array_equal(np.array(left)[0], masked(logits, tokens))


@pytest.mark.parametrize("token", [0, 31, 32, 63, 299])
def test_a_token_that_is_allowed_alone_comes_whatever_bans_it(token):
    logits = logits_of(300)
    logits[token] = -np.inf
    left = np.array(made_to_come(logits, [token]))[0]
    assert left[token] == 0
    assert np.isneginf(np.delete(left, token)).all()
    for other in (0, 33, 298):
        logits[[other, other + 1]] = -np.inf
        assert np.isneginf(np.array(made_to_come(logits, [other, other + 1]))).all()
    logits[:] = -np.inf
    for pair in ((0, 32), (1, 299), (31, 64), (63, 62)):
        assert np.isneginf(np.array(made_to_come(logits, pair))).all()


@pytest.mark.parametrize("strategy", [STRATEGIES[0], STRATEGIES[3]], ids=["greedy", "sampled"])
def test_a_draw_from_banned_tokens_is_made_again(strategy):
    """It succeeds if there is only one of them."""
    logits = logits_of(300)
    logits[[7, 8]] = -np.inf
    for tokens, status in (([7], Status.CERTAIN), ([7, 8], Status.NOT_FINITE)):
        sampler = Sampler(strategy, RandomKeys(0), prompt=[1], capacity=9)
        draw = sampler.draw(mx.array(logits[None]), 0, Allowed(bits(np.array(tokens), 300)))
        assert read_draw(draw)[1] == Status.UNCERTAIN
        token, found = read_draw(sampler.redraw(draw))
        assert found == status
        assert token == 7 or status != Status.CERTAIN


def made_to_come(logits, tokens):
    return keep_allowed(mx.array(logits[None]), bits(np.array(tokens), 300), must_come=True)


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param(strategy, id=str(number), marks=pytest.mark.release if number in (1, 2, 3, 4) else ())
        for number, strategy in enumerate(STRATEGIES)
    ],
)
def test_frequencies_are_those_of_the_distribution_made_whole(strategy):
    vocabulary, draws = 300, 40_000
    logits, tokens = logits_of(vocabulary), some(vocabulary, 25)
    rows = mx.broadcast_to(mx.array(logits), (draws, vocabulary))
    keys = mx.random.split(mx.random.key(5), draws)
    outcome, _ = DrawRule(strategy, None)(rows, keep_allowed(rows, bits(tokens, vocabulary)), keys)
    drawn, status = np.array(outcome).reshape(2, -1)
    assert (status == Status.CERTAIN).all()
    expected = probabilities(masked(logits, tokens).astype(np.float64), strategy)
    found = np.bincount(drawn, minlength=vocabulary) / draws
    assert set(np.flatnonzero(found)) <= set(np.flatnonzero(expected)) <= set(tokens)
    assert np.abs(found - expected).max() < 0.012


@pytest.mark.parametrize("count", [1, 3, 500, BIG - 7])
@pytest.mark.parametrize("strategy", STRATEGIES, ids=range(6))
def test_a_large_vocabulary_is_drawn_from_as_if_it_had_no_other_tokens(strategy, count):
    logits, tokens = logits_of(BIG), some(BIG, count)
    sampler = Sampler(strategy, RandomKeys(2), prompt=[1], capacity=9)
    for index in range(3):
        draw = sampler.draw(mx.array(logits[None]), index, Allowed(bits(tokens, BIG)))
        reference = sampler.draw(mx.array(masked(logits, tokens)[None]), index)
        if draw.outcomes.tolist()[1] == Status.UNCERTAIN:
            draw, reference = sampler.redraw(draw), sampler.redraw(reference)
        assert draw.outcomes.tolist() == reference.outcomes.tolist()
        assert draw.outcomes.tolist()[0] in tokens
        # A few tokens are not looked for twice.
        assert draw.outcomes.tolist()[1] == Status.CERTAIN


def test_texts_that_are_drawn_together_have_each_their_own_tokens():
    logits = mx.array(np.stack([logits_of(300, seed) for seed in range(6)]))
    samplers = [
        Sampler(STRATEGIES[1 + row % 2], RandomKeys(4, row), prompt=[1], capacity=9) for row in range(6)
    ]
    allowed = [None if row in (1, 4) else Allowed(bits(some(300, 5, row), 300)) for row in range(6)]
    together = draw_together(logits, samplers, [3] * 6, allowed)
    for row, (sampler, draw) in enumerate(zip(samplers, together, strict=True)):
        alone = sampler.draw(logits[row : row + 1], 3, allowed[row])
        assert read_draw(draw) == read_draw(alone)
        assert mx.array_equal(draw.logits, alone.logits).item()
        assert (draw.allowed is None) == (allowed[row] is None)


@pytest.mark.parametrize("number", [0, 1, 5])
@pytest.mark.parametrize("place", [0, 1, 250], ids=["first", "second", "never"])
def test_a_token_comes_instead_as_often_as_it_does_among_all(number, place):
    """The tokens that are allowed share what is left, in proportion to their probabilities."""
    vocabulary, draws, strategy = 300, 10_000, STRATEGIES[number]
    logits, tokens = logits_of(vocabulary), some(vocabulary, 5)
    opening = np.argsort(-logits)[place]
    allowed = Allowed(bits(tokens, vocabulary), bits(np.array([opening]), vocabulary))
    rows = mx.broadcast_to(mx.array(logits), (draws, vocabulary))
    keys = mx.random.split(mx.random.key(6), draws)
    outcome, _ = DrawRule(strategy, None).among(rows, rows, allowed, keys)
    drawn, status = np.array(outcome).reshape(2, -1)
    assert (status == Status.CERTAIN).all()
    share = probabilities(logits.astype(np.float64), strategy)[opening]
    expected = (1 - share) * probabilities(masked(logits, tokens).astype(np.float64), strategy)
    expected[opening] += share
    found = np.bincount(drawn, minlength=vocabulary) / draws
    assert np.abs(found - expected).max() < 0.02


def test_a_row_is_drawn_as_a_text_draws_its_first_token():
    logits = logits_of(300)
    allowed = Allowed(bits(some(300, 5), 300), bits(np.array([logits.argmax()]), 300))
    rows = mx.broadcast_to(mx.array(logits), (50, 300))
    for rule in (DrawRule(STRATEGIES[1], None), DrawRule(STRATEGIES[3], None)):
        keys = mx.stack([RandomKeys(seed).key(0) for seed in range(50)])
        drawn = np.array(rule.among(rows, rows, allowed, keys)[0]).reshape(2, -1).T
        for seed, outcome in enumerate(drawn.tolist()):
            sampler = Sampler(
                rule.strategy, RandomKeys(seed), prompt=[1], capacity=9, logprobs=seed % 2 or None
            )
            assert sampler.draw(rows[:1], 0, allowed).outcomes.tolist() == outcome


def test_penalties_come_before_and_the_temperature_after():
    strategy = SamplingStrategy(temperature=0.0, repetition_penalty=2.0)
    sampler = Sampler(strategy, RandomKeys(0), prompt=[4], capacity=9)
    logits = mx.zeros((1, 64)) + mx.array([3.0 if token in (4, 5) else 9.0 for token in range(64)])
    drawn = sampler.draw(logits, 0, Allowed(bits(np.array([4, 5]), 64)))
    assert drawn.outcomes.tolist() == [5, Status.CERTAIN]
