"""Tests which tokens are drawn and how often: kept sets and frequencies against a float64 reference.

Sums in float32 differ from those in float64 by rounding, so that a token whose cumulative
probability is within 1e-5 of p may fall on either side. `assert_kept` therefore asks for a set
between the reference's at p - 1e-5 and at p + 1e-5, which is the exact set wherever these two are
the same; tests that are about exactness use logits where they are.
"""

import math
from itertools import product

import mlx.core as mx
import numpy as np
import pytest
from sampling_reference import SMALLEST_WEIGHT_LOG, adjusted, kept, kept_within, probabilities

from metal_gen.device.backend import runs_on_cpu
from metal_gen.sampling.bias import add_bias, bias_arrays
from metal_gen.sampling.draw_rule import Status, candidate_blocks, draw_once
from metal_gen.sampling.exponential import exp
from metal_gen.sampling.inverse_cdf import draw
from metal_gen.sampling.strategy import SamplingStrategy, Temperature, TopK, TopP

pytestmark = pytest.mark.metal

DRAWS = 100_000
BIG = 40_011
QWEN = 151_936

STRATEGIES = [
    Temperature(1.0),
    Temperature(0.25),
    Temperature(4.0),
    TopK(2),
    TopK(7, temperature=2.0),
    TopK(10**9),
    TopP(1e-8),
    TopP(0.1),
    TopP(0.5),
    TopP(0.9, temperature=0.5),
    TopP(0.99),
    TopP(1.0),
    SamplingStrategy(min_p=0.1),
    SamplingStrategy(min_p=1.0),
    SamplingStrategy(temperature=2.0, min_p=0.02),
    SamplingStrategy(top_k=20, top_p=0.9),
    SamplingStrategy(top_k=20, top_p=1.0),
    SamplingStrategy(top_k=20, min_p=0.05),
    SamplingStrategy(top_p=0.9, min_p=0.03),
    SamplingStrategy(temperature=0.5, top_k=40, top_p=0.95, min_p=0.01),
]
BANS = SamplingStrategy(temperature=2.0, top_p=0.9, logit_bias={0: -math.inf, 5: 3.0, 20: -math.inf})
TRUNCATING = [strategy for strategy in STRATEGIES if candidate_blocks(strategy, BIG)]


def random_logits(vocabulary, *, scale=3.0, seed=0):
    return (scale * np.random.RandomState(seed).standard_normal(vocabulary)).astype(np.float32)


def zipf_logits(vocabulary, *, exponent=1.2, seed=0):
    """Return logits with few probable tokens, so that neighbors at the edge of a nucleus differ clearly."""
    ranks = np.random.RandomState(seed).permutation(vocabulary) + 1
    return (-exponent * np.log(ranks)).astype(np.float32)


def peaked_logits(vocabulary, *, seed=0):
    logits = random_logits(vocabulary, scale=1.0, seed=seed)
    logits[vocabulary // 3] += 20
    return logits


SHAPES = {
    "random": random_logits,
    "zipf": zipf_logits,
    "peaked": peaked_logits,
    "flat": lambda vocabulary: random_logits(vocabulary, scale=0.01),
    "tied": lambda vocabulary: np.round(random_logits(vocabulary)) + 0,  # no -0
    "equal": lambda vocabulary: np.full(vocabulary, -3.5, np.float32),
}
DTYPES = ("float32", "float16", "bfloat16")


def rounded_to(dtype, logits):
    """Return logits (1, V) of a model of this dtype, and the same for the reference."""
    array = mx.array(logits).astype(getattr(mx, dtype)).astype(mx.float32)
    return array[None], np.array(array)


def look(logits, strategy, *, whole, uniform=0.5):
    """Draw once from one row. Return token, status, ids with a weight, and candidate ids."""
    token, status, (weights, ids) = draw_once(logits, strategy, mx.array([[uniform]]), whole=whole)
    places = np.arange(logits.shape[1]) if ids is None else np.array(ids[0])
    inside = places < logits.shape[1]
    mask, seen = np.zeros((2, logits.shape[1]), dtype=bool)
    mask[places[inside]] = np.array(weights[0])[inside] > 0
    seen[places[inside]] = True
    return int(token.item()), Status(int(status.item())), mask, seen


def assert_kept(mask, logits, strategy):
    """Check that the ids with a weight are the reference's, except weights too small for float32."""
    fewest, most = kept_within(logits, strategy)
    visible = (logits - logits.max()) / strategy.temperature > SMALLEST_WEIGHT_LOG
    assert not (fewest & visible & ~mask).any(), f"{strategy}: too few are kept"
    assert not (mask & visible & ~most).any(), f"{strategy}: too many are kept"


# Kept sets


@pytest.mark.quick
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("vocabulary", [1, 2, 129, 1000])
def test_the_whole_vocabulary_keeps_the_references_set(vocabulary, shape, dtype):
    logits, values = rounded_to(dtype, SHAPES[shape](vocabulary))
    for strategy in STRATEGIES:
        token, status, mask, _ = look(logits, strategy, whole=True)
        assert status is Status.CERTAIN
        assert mask[token]
        assert_kept(mask, values, strategy)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        pytest.param(shape, dtype, marks=pytest.mark.release if number % 2 else ())
        for number, (shape, dtype) in enumerate(product(SHAPES, DTYPES))
    ],
)
def test_a_big_vocabulary_keeps_the_references_set(shape, dtype):
    """Check that candidates equal the reference's set if certain, and are uncertain if they lack some."""
    logits, values = rounded_to(dtype, SHAPES[shape](BIG))
    certain = 0
    for strategy in TRUNCATING:
        fewest, _ = kept_within(values, strategy)
        token, status, mask, seen = look(logits, strategy, whole=False)
        if (fewest & ~seen).any():
            assert status is Status.UNCERTAIN, strategy
        if status is Status.CERTAIN:
            certain += 1
            assert mask[token]
            assert_kept(mask, values, strategy)
    assert certain == 0 or shape != "equal"
    if shape in ("zipf", "peaked") and dtype == "float32":
        assert certain >= len(TRUNCATING) // 2
    whole = TRUNCATING[::2] if dtype == "float32" else TRUNCATING[1::6]
    for strategy in whole:
        _, status, mask, _ = look(logits, strategy, whole=True)
        assert status is Status.CERTAIN
        assert_kept(mask, values, strategy)


@pytest.mark.parametrize(
    "strategy", [TopK(50), TopP(0.9), SamplingStrategy(top_k=20, top_p=0.95, min_p=0.01)], ids=str
)
@pytest.mark.parametrize("shape", ["random", "zipf", "tied"])
def test_qwens_vocabulary_keeps_the_references_set(shape, strategy):
    logits, values = rounded_to("float32", SHAPES[shape](QWEN))
    for whole in (True, False):
        _, status, mask, _ = look(logits, strategy, whole=whole)
        assert status is Status.CERTAIN or not whole
        if status is Status.CERTAIN:
            assert_kept(mask, values, strategy)


@pytest.mark.parametrize("strategy", TRUNCATING, ids=str)
def test_candidates_and_the_whole_vocabulary_draw_the_same(strategy):
    """Candidates are in the order of ids, so the same random number gives the same token."""
    rows = mx.array(np.stack([zipf_logits(BIG, exponent=4.0, seed=seed) for seed in range(16)]))
    uniform = mx.random.uniform(shape=(16, 1), key=mx.random.key(1))
    some, status, _ = draw_once(rows, strategy, uniform, whole=False)
    every, _, _ = draw_once(rows, strategy, uniform, whole=True)
    certain = np.array(status) == Status.CERTAIN
    assert certain.any()
    np.testing.assert_array_equal(np.array(some)[certain], np.array(every)[certain])


@pytest.mark.quick
def test_a_clear_edge_is_met_exactly():
    """If p is far from every cumulative value, the set is exactly the reference's."""
    logits, values = rounded_to("float32", zipf_logits(BIG, exponent=2.0))
    ranked = np.sort(probabilities(values, Temperature(1.0)))[::-1]
    mass = np.cumsum(ranked)
    for size in (1, 2, 3, 10, 50):
        strategy = TopP(float(mass[size - 1] - ranked[size - 1] / 2))
        fewest, most = kept_within(values, strategy)
        assert (fewest == most).all()
        for whole in (True, False):
            _, status, mask, _ = look(logits, strategy, whole=whole)
            # The 32 searched blocks need not hold the 50 largest.
            assert status is Status.CERTAIN or (size == 50 and not whole)
            if status is Status.CERTAIN:
                np.testing.assert_array_equal(mask, fewest)
                assert mask.sum() == size


@pytest.mark.quick
@pytest.mark.parametrize("p", [1e-8, 0.1, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_nucleus_is_the_smallest_set_that_reaches_p(p, dtype):
    logits, values = rounded_to(dtype, random_logits(500))
    _, _, mask, _ = look(logits, TopP(p), whole=True)
    chances = probabilities(values, Temperature(1.0))
    assert chances[mask].sum() >= p - 1e-6
    assert chances[mask].sum() - chances[mask].min() < p + 1e-6
    assert mask.all() or chances[mask].min() >= chances[~mask].max()


@pytest.mark.quick
@pytest.mark.parametrize("p", [1e-300, 1e-45, 1e-8])
@pytest.mark.parametrize("vocabulary", [2, 300, BIG])
def test_the_smallest_p_keeps_the_lowest_of_the_largest(p, vocabulary):
    values = random_logits(vocabulary)
    values[[vocabulary // 2, vocabulary - 1]] = 30
    for whole in (True, False):
        token, status, mask, _ = look(mx.array(values)[None], TopP(p), whole=whole)
        assert status is Status.CERTAIN
        assert token == vocabulary // 2
        assert mask.sum() == 1


@pytest.mark.quick
@pytest.mark.parametrize("p", [0.999999, 1 - 2**-24, 1 - 2**-53])
@pytest.mark.parametrize("vocabulary", [2, 300, BIG])
def test_p_next_to_1_keeps_the_mass(p, vocabulary):
    values = random_logits(vocabulary, scale=1.0)
    _, status, mask, _ = look(mx.array(values)[None], TopP(p), whole=True)
    assert status is Status.CERTAIN
    assert probabilities(values, Temperature(1.0))[mask].sum() >= p - 2e-6


@pytest.mark.quick
@pytest.mark.parametrize("vocabulary", [2, 129, 1000, BIG])
def test_k_at_its_extremes(vocabulary):
    logits, values = rounded_to("float32", random_logits(vocabulary, scale=1.0))
    smallest = int(values.argmin())
    for k in (vocabulary, vocabulary + 1, 10**12):
        _, status, mask, _ = look(logits, TopK(k), whole=False)
        assert status is Status.CERTAIN
        assert mask.all()
    if vocabulary > 2:
        _, _, mask, _ = look(logits, TopK(vocabulary - 1), whole=False)
        assert np.flatnonzero(~mask).tolist() == [smallest]


@pytest.mark.quick
@pytest.mark.parametrize(
    "k",
    [154, 155, 156, 157, 200, 255],
)
def test_k_that_needs_as_many_blocks_as_there_are(k):
    """20,011 logits fill 157 blocks of 128."""
    logits, values = rounded_to("float32", random_logits(20_011))
    _, status, mask, _ = look(logits, TopK(k), whole=False)
    assert status is Status.CERTAIN
    np.testing.assert_array_equal(mask, kept(values, TopK(k)))


@pytest.mark.quick
@pytest.mark.parametrize("vocabulary", [7, 300, BIG])
@pytest.mark.parametrize("whole", [True, False])
def test_ties_at_the_last_place_go_to_the_lowest_ids(vocabulary, whole):
    values = np.full(vocabulary, -9.0, np.float32)
    tied = np.sort(np.random.RandomState(1).permutation(min(vocabulary, 2000))[:40])
    values[tied] = 2.0
    values[tied[-1]] = 5.0
    for k in (2, 3, len(tied) - 1):
        _, status, mask, _ = look(mx.array(values)[None], TopK(k), whole=whole)
        assert status is Status.CERTAIN
        assert np.flatnonzero(mask).tolist() == sorted([*tied[: k - 1], tied[-1]])


@pytest.mark.quick
@pytest.mark.parametrize("vocabulary", [7, 300, BIG])
@pytest.mark.parametrize("whole", [True, False])
def test_ties_at_the_edge_of_the_nucleus_go_to_the_lowest_ids(vocabulary, whole):
    """Twenty equal tokens share nearly everything: p half-way through the n-th keeps n."""
    values = np.full(vocabulary, -60.0, np.float32)
    count = min(vocabulary, 20)
    tied = np.sort(np.random.RandomState(2).permutation(vocabulary)[:count])
    values[tied] = 2.0
    for size in (1, 2, count // 2, count):
        strategy = TopP((size - 0.5) / count)
        _, status, mask, _ = look(mx.array(values)[None], strategy, whole=whole)
        assert status is Status.CERTAIN
        assert np.flatnonzero(mask).tolist() == tied[:size].tolist()


@pytest.mark.quick
@pytest.mark.parametrize("vocabulary", [2, 300, BIG, QWEN])
def test_of_equal_logits_the_lowest_ids_are_kept(vocabulary):
    logits = mx.full((1, vocabulary), 1.25)
    for size in {1, vocabulary // 3 or 1, vocabulary - 1}:
        lowest = np.arange(vocabulary) < size
        for strategy in (TopP((size - 0.5) / vocabulary), TopK(size)):
            _, _, mask, _ = look(logits, strategy, whole=True)
            np.testing.assert_array_equal(mask, lowest)
    _, _, mask, _ = look(logits, SamplingStrategy(min_p=1.0), whole=True)
    assert mask.all()


@pytest.mark.quick
@pytest.mark.parametrize("strategy", [TopK(2), TopP(0.3)], ids=str)
def test_zeros_of_either_sign_are_equal(strategy):
    values = np.array([-0.0, 0.0, -0.0, 0.0], np.float32)
    _, _, mask, _ = look(mx.array(values)[None], strategy, whole=True)
    assert mask.tolist() == kept(values, strategy).tolist()


@pytest.mark.quick
def test_a_tie_with_a_left_out_token_is_uncertain():
    """One token in each of 313 blocks is largest, all equal: candidates cannot know the lowest ids."""
    values = np.full(BIG, -20.0, np.float32)
    values[::128] = 1.0
    for strategy in (TopK(20), TopP(0.5), SamplingStrategy(min_p=0.5)):
        _, status, _, _ = look(mx.array(values)[None], strategy, whole=False)
        assert status is Status.UNCERTAIN
        _, _, mask, _ = look(mx.array(values)[None], strategy, whole=True)
        assert_kept(mask, values, strategy)


@pytest.mark.quick
@pytest.mark.parametrize("vocabulary", [40, 1000, BIG])
def test_minus_infinity_is_never_kept(vocabulary):
    for strategy in STRATEGIES:
        check_bans(vocabulary, strategy)


def check_bans(vocabulary, strategy):
    values = random_logits(vocabulary)
    banned = np.random.RandomState(4).permutation(vocabulary)[: vocabulary - 10]
    values[banned] = -math.inf
    for whole in (True, False):
        token, status, mask, _ = look(mx.array(values)[None], strategy, whole=whole, uniform=0.0)
        if status is Status.CERTAIN:
            assert values[token] > -math.inf
            assert not mask[banned].any()
            assert_kept(mask, np.maximum(values, -1e30), strategy)


@pytest.mark.quick
@pytest.mark.parametrize("vocabulary", [40, 1000, BIG])
def test_a_single_finite_logit_is_drawn(vocabulary):
    values = np.full(vocabulary, -math.inf, np.float32)
    values[vocabulary - 2] = -80.0
    for strategy in STRATEGIES:
        for uniform in (0.0, 0.5, 1 - 2**-24):
            token, status, _, _ = look(mx.array(values)[None], strategy, whole=True, uniform=uniform)
            assert (token, status) == (vocabulary - 2, Status.CERTAIN)


@pytest.mark.quick
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("vocabulary", [1, 2, 129, BIG])
@pytest.mark.parametrize("whole", [True, False])
def test_a_row_that_is_not_finite_does_not_affect_others(value, vocabulary, whole):
    """A row has NaN or plus infinity anywhere, or only minus infinity."""
    for strategy in (Temperature(0.7), TopK(5), TopP(0.9), SamplingStrategy(min_p=0.1)):
        for place in {0, vocabulary // 2, vocabulary - 1}:
            rows = np.stack([random_logits(vocabulary, seed=seed) for seed in range(3)])
            rows[1, slice(None) if value == -math.inf else place] = value
            _, status, _ = draw_once(mx.array(rows), strategy, mx.full((3, 1), 0.5), whole=whole)
            found = np.array(status) == Status.NOT_FINITE
            assert found.tolist() == [False, True, False]


# Frequencies


def critical_value(freedom):
    """Return the chi-square value exceeded by chance once in 100,000 (Wilson and Hilferty)."""
    share = 2 / (9 * freedom)
    return freedom * (1 - share + 4.265 * math.sqrt(share)) ** 3


def assert_drawn_from(tokens, chances):
    """Check chi-square over bins of at least 10 expected draws, and that impossible tokens are not drawn."""
    counts = np.bincount(tokens, minlength=len(chances))
    assert len(counts) == len(chances)
    assert counts[chances == 0].sum() == 0
    order = np.argsort(-chances, kind="stable")
    expected, seen = chances[order] * len(tokens), counts[order]
    rare = int((expected >= 10).sum())
    bins = np.append(np.arange(rare), rare + np.flatnonzero(np.diff(np.cumsum(expected[rare:]) // 10)) + 1)
    bins = bins[bins < len(expected)].astype(int)
    expected, seen = np.add.reduceat(expected, bins), np.add.reduceat(seen, bins)
    if len(expected) > 1 and expected[-1] < 10:
        expected = np.append(expected[:-2], expected[-2:].sum())
        seen = np.append(seen[:-2], seen[-2:].sum())
    assert seen.sum() == len(tokens)
    if len(expected) > 1:
        statistic = float(((seen - expected) ** 2 / expected).sum())
        assert statistic < critical_value(len(expected) - 1)


@pytest.mark.quick
def test_the_critical_value_is_that_of_the_tables():
    """Upper 1e-5 quantiles of chi-square."""
    for freedom, quantile in ((10, 42.92), (50, 104.2), (100, 171.5)):
        assert critical_value(freedom) == pytest.approx(quantile, rel=0.03)


@pytest.mark.quick
def test_the_chi_square_test_notices_a_wrong_distribution():
    chances = probabilities(random_logits(64, scale=1.0), Temperature(1.0))
    wrong = probabilities(random_logits(64, scale=1.0), Temperature(1.05))
    tokens = np.random.RandomState(0).choice(64, DRAWS, p=wrong)
    with pytest.raises(AssertionError):
        assert_drawn_from(tokens, chances)


@pytest.mark.parametrize("strategy", [*STRATEGIES, BANS], ids=str)
def test_tokens_are_drawn_as_often_as_they_should(strategy):
    values = random_logits(24, scale=2.0)
    uniform = mx.random.uniform(shape=(DRAWS, 1), key=mx.random.key(11))
    row = add_bias(mx.array(values)[None], bias_arrays(dict(strategy.logit_bias)))
    tokens = []
    for begin in range(0, DRAWS, 25_000):
        rows = mx.broadcast_to(row, (25_000, 24))
        tokens.append(np.array(draw_once(rows, strategy, uniform[begin : begin + 25_000], whole=True)[0]))
    assert_drawn_from(np.concatenate(tokens), probabilities(adjusted(values, strategy), strategy))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ("flat", "float32"),
        ("tied", "float16"),
        ("peaked", "bfloat16"),
        ("random", "bfloat16"),
        ("equal", "float16"),
    ],
)
def test_frequencies_of_each_dtype_and_shape(shape, dtype):
    row, values = rounded_to(dtype, SHAPES[shape](200))
    strategy = SamplingStrategy(temperature=2.0, top_p=0.93)
    uniform = mx.random.uniform(shape=(DRAWS, 1), key=mx.random.key(12))
    _, _, (weights, _) = draw_once(row, strategy, uniform[:1], whole=True)
    tokens = np.array(draw(mx.broadcast_to(weights, (DRAWS, 200)), uniform))[:, 0]
    assert_drawn_from(tokens, probabilities(values, strategy))


@pytest.mark.parametrize(
    ("vocabulary", "strategy", "draws"),
    [
        (BIG, TopP(0.9), DRAWS),
        (QWEN, SamplingStrategy(temperature=2.0, top_k=30, top_p=0.99, min_p=0.02), DRAWS),
        pytest.param(BIG, Temperature(1.0), 20_000, marks=pytest.mark.release),
    ],
    ids=str,
)
def test_frequencies_of_a_big_vocabulary(vocabulary, strategy, draws):
    """Truncate the row once, among candidates if possible, and draw from it many times."""
    logits, values = rounded_to("float32", zipf_logits(vocabulary, exponent=2.0))
    uniform = mx.random.uniform(shape=(draws, 1), key=mx.random.key(13))
    _, status, (weights, ids) = draw_once(logits, strategy, uniform[:1], whole=False)
    assert Status(int(status.item())) is Status.CERTAIN
    places = []
    for begin in range(0, draws, 500):
        some = mx.broadcast_to(weights, (500, weights.shape[1]))
        places.append(np.array(draw(some, uniform[begin : begin + 500]))[:, 0])
    tokens = np.concatenate(places)
    if ids is not None:
        tokens = np.array(ids[0])[tokens]
    assert_drawn_from(tokens, probabilities(values, strategy))


@pytest.mark.quick
@pytest.mark.parametrize("shape", ["flat", "random", "equal"])
@pytest.mark.parametrize("vocabulary", [5, 5000, BIG, QWEN])
def test_a_number_finds_its_place_in_the_cumulative_distribution(vocabulary, shape):
    """Evenly spaced numbers are stricter than counting, and affordable for Qwen's vocabulary."""
    values = SHAPES[shape](vocabulary)
    chances = probabilities(values, Temperature(1.0))
    mass = np.cumsum(chances)
    numbers = (np.arange(64, dtype=np.float32) + 0.5) / 64
    weights = exp(mx.array(values - values.max())[None])
    tokens = np.array(draw(mx.broadcast_to(weights, (64, vocabulary)), mx.array(numbers)[:, None]))[:, 0]
    assert (mass[tokens] >= numbers - 3e-6).all()
    assert (mass[tokens] - chances[tokens] <= numbers + 3e-6).all()


@pytest.mark.parametrize("vocabulary", [3, 300, 8192, 8193, BIG])
def test_tokens_without_weight_are_never_drawn(vocabulary):
    """Test the ends of the range and every edge between blocks."""
    stream = np.random.RandomState(5)
    weights = stream.random_sample(vocabulary).astype(np.float32)
    weights[stream.random_sample(vocabulary) < 0.5] = 0
    weights[::128] = 0
    weights[-1] = 0
    weights[vocabulary // 2] = 1
    edges = np.cumsum(weights.astype(np.float64))[127::128] / weights.sum()
    numbers = np.concatenate([[0, 1e-38, 1 - 2**-24], edges, edges - 1e-7, edges + 1e-7])
    numbers = np.clip(numbers, 0, 1 - 2**-24).astype(np.float32)
    rows = mx.broadcast_to(mx.array(weights)[None], (len(numbers), vocabulary))
    places = np.array(draw(rows, mx.array(numbers)[:, None]))[:, 0]
    assert (weights[places] > 0).all()


@pytest.mark.quick
def test_entropy_grows_with_temperature():
    values = random_logits(200, scale=2.0)
    entropies, drawn = [], []
    for temperature in (0.05, 0.1, 0.3, 0.7, 1.0, 1.5, 3.0, 10.0, 100.0):
        uniform = mx.random.uniform(shape=(20_000, 1), key=mx.random.key(14))
        row = mx.array(values)[None]
        _, _, (weights, _) = draw_once(row, Temperature(temperature), uniform[:1], whole=True)
        chances = np.array(weights[0], dtype=np.float64)
        chances = chances[chances > 0] / chances.sum()
        entropies.append(-(chances * np.log(chances)).sum())
        tokens = np.array(draw(mx.broadcast_to(weights, (20_000, 200)), uniform))[:, 0]
        counts = np.bincount(tokens) / 20_000
        counts = counts[counts > 0]
        drawn.append(-(counts * np.log(counts)).sum())
    assert (np.diff(entropies) > 0).all()
    assert (np.diff(drawn) > 0).all()
    assert entropies[-1] < math.log(200)


@pytest.mark.quick
@pytest.mark.parametrize("temperature", [1e-9, 1e-6, 1e-3])
def test_a_temperature_next_to_0_is_greedy(temperature):
    for vocabulary in (50, BIG):
        values = random_logits(vocabulary)
        for strategy in (Temperature(temperature), TopP(0.9, temperature=temperature)):
            for whole in (True, False):
                token, status, _, _ = look(mx.array(values)[None], strategy, whole=whole, uniform=0.99)
                assert (token, status) == (values.argmax(), Status.CERTAIN)


@pytest.mark.quick
def test_the_highest_temperature_is_nearly_uniform():
    values = random_logits(300)
    _, status, (weights, _) = draw_once(
        mx.array(values)[None], Temperature(1000.0), mx.array([[0.5]]), whole=True
    )
    assert Status(int(status.item())) is Status.CERTAIN
    assert np.array(weights).min() > 0.98


@pytest.mark.quick
def test_the_highest_temperature_still_leaves_bans_alone():
    values = random_logits(300)
    values[7] = -math.inf
    token, status, mask, _ = look(mx.array(values)[None], Temperature(1000.0), whole=True)
    assert status is Status.CERTAIN
    assert not mask[7]
    assert token != 7


@pytest.mark.quick
def test_the_order_of_the_steps_shows_in_the_result():
    """Top-p counts the tokens that top-k left, at the given temperature; min-p those that both left."""
    values = np.log(np.array([0.4, 0.3, 0.2, 0.1])).astype(np.float32)
    logits = mx.array(values)[None]

    def size(**parameters):
        return int(look(logits, SamplingStrategy(**parameters), whole=True)[2].sum())

    assert size(top_p=0.8) == 3
    assert size(top_k=2, top_p=0.56) == 1
    assert size(top_p=0.56) == 2
    assert size(temperature=0.25, top_p=0.8) == 2
    assert size(temperature=4.0, top_p=0.8) == 4
    assert size(min_p=0.4) == 3
    assert size(min_p=0.4, temperature=4.0) == 4
    assert size(min_p=0.4, top_k=2) == 2


# exp


@pytest.mark.quick
@pytest.mark.parametrize("count", [1000, 200_001])
def test_exp_is_within_3e_7_where_it_matters(count):
    """For fewer than 16,384 numbers it is MLX's own function, which is less exact."""
    points = np.linspace(-80, 0, count).astype(np.float32)
    made = np.array(exp(mx.array(points)), dtype=np.float64)
    error = np.abs(made / np.exp(points.astype(np.float64)) - 1).max()
    # Metal promises four units in the last place, 5e-7.
    assert error <= (3e-7 if count > 16_384 and runs_on_cpu() else 5e-6)
    assert made[-1] == 1


@pytest.mark.quick
def test_exp_of_extremes():
    points = np.zeros(20_000, np.float32)
    points[1:7] = [-87.0, -104.0, -1e4, -1e30, -3.4e38, -math.inf]
    made = np.array(exp(mx.array(points)))
    assert np.isfinite(made).all()
    assert (made[[0, 7, 19_999]] == 1).all()
    assert made[1] == pytest.approx(math.exp(-87), rel=3e-7 if runs_on_cpu() else 1e-6)
    assert (made[2:7] <= 1e-38).all()
    assert (made >= 0).all()


@pytest.mark.quick
def test_exp_of_minus_infinity_is_0():
    assert (np.array(exp(mx.full((20_000,), -math.inf))) == 0).all()


def test_bans_hold_against_every_random_number():
    """The first token of each block is banned: a number between two blocks must not reach it."""
    values = random_logits(BIG, scale=1.0)
    values[::128] = -math.inf
    weights = exp(mx.array(values - values.max())[None])
    chances = probabilities(values, Temperature(1.0))
    edges = np.cumsum(chances)[127::128].astype(np.float32)
    steps = np.arange(-8, 9, dtype=np.float32) * 2**-24
    numbers = np.clip((edges[:, None] + steps).reshape(-1), 0, 1 - 2**-24).astype(np.float32)
    numbers = np.append(numbers, np.float32(0))
    rows = mx.broadcast_to(weights, (len(numbers), BIG))
    places = np.array(draw(rows, mx.array(numbers)[:, None]))[:, 0]
    assert (values[places] > -math.inf).all()


@pytest.mark.parametrize(
    ("p", "whole"),
    [
        (0.9, True),
        (0.9, False),
        (0.999, True),
        (0.999, False),
        (0.9999, False),
        pytest.param(0.9999, True),
    ],
)
def test_sums_over_a_wide_spread_of_logits_are_exact_enough(p, whole):
    """Adding 151,936 weights one by one would be off by parts in ten thousand."""
    values = random_logits(QWEN)
    values[:20] += 14  # So that the candidates hold the mass.
    strategy = TopP(p)
    _, status, mask, _ = look(mx.array(values)[None], strategy, whole=whole)
    if status is Status.CERTAIN:
        assert_kept(mask, values, strategy)


@pytest.mark.quick
def test_a_sum_decides_like_the_reference_at_a_clear_edge():
    """Many unlikely tokens together have a fifth of the weight."""
    for spread in (1.0, 2.0, 3.0):
        values = random_logits(QWEN, scale=spread)
        rest = np.log(np.exp(values.astype(np.float64)).sum())
        values[1000:1008] = np.float32(rest + math.log(4 / 8))
        # Eight tokens hold 0.8, 0.1 each. p is 5e-5 above six of them, or below.
        for size, p in ((6, 0.6 - 5e-5), (7, 0.6 + 5e-5)):
            for whole in (True, False):
                _, status, mask, _ = look(mx.array(values)[None], TopP(p), whole=whole)
                assert status is Status.CERTAIN
                assert mask.sum() == size, (spread, p, whole)
