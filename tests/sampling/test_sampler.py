"""Tests the sampler of a text: penalties, bans, keys, errors, log-probabilities; and strategies."""

import math
import tomllib
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_reference import adjusted, log_softmax, probabilities
from strategy_texts import to_flags, to_toml

from metal_gen.config.settings import SETTINGS, Settings
from metal_gen.config.sources import override_with_flags, resolve_settings
from metal_gen.engine.generator import generate_tokens
from metal_gen.errors import ExitCode, UsageError
from metal_gen.generation.strategy_settings import strategy_from
from metal_gen.sampling.draw_rule import Status, draw_once
from metal_gen.sampling.logits_error import LogitsError, NoTokenLeftError
from metal_gen.sampling.logprobs import read_logprobs
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import DRAWS_AFTER_A_MISS, Sampler, sample_token
from metal_gen.sampling.seed import choose_seed
from metal_gen.sampling.strategy import Greedy, SamplingStrategy, Temperature, TopK, TopP, require_vocabulary

BIG = 40_011
DRAWING = [Temperature(0.8), TopK(5), TopP(0.9), SamplingStrategy(min_p=0.1)]


def random_logits(vocabulary, seed=0, scale=2.0):
    return (scale * np.random.RandomState(seed).standard_normal(vocabulary)).astype(np.float32)


def make_sampler(strategy, *, prompt=(1,), seed=0, sequence=0, **options):
    keys = RandomKeys(seed, sequence)
    return Sampler(strategy, keys, prompt=list(prompt), capacity=64, **options)


def take(sampler, values, index):
    """Draw, accept and read a token, from the whole vocabulary if candidates are not enough."""
    drawn = sampler.draw(mx.array(values)[None], index)
    if drawn.outcomes[1].item() == Status.UNCERTAIN:
        drawn = sampler.redraw(drawn)
    sampler.accept(drawn)
    token, status = drawn.outcomes.tolist()
    assert status == Status.CERTAIN
    return token, drawn


def text_of(strategy, steps=12, *, vocabulary=20, **options):
    sampler = make_sampler(strategy, **options)
    return [take(sampler, random_logits(vocabulary, seed=step), step)[0] for step in range(steps)]


class Scripted:
    """A decoder whose logits are given in advance."""

    hands_over_early = False

    def __init__(self, rows):
        self.rows = [mx.array(row)[None] for row in rows]
        self.position = 0
        self.cache = SimpleNamespace(remaining=len(rows) - 1, take_back=self.take_back)

    def take_back(self, count):
        self.position -= count

    def draw_next(self, token, sampler, index):
        return sampler.draw(self.step(token), index)

    def step(self, token):
        self.position += 1
        return self.rows[self.position]


def generate(rows, strategy, *, seed=0, **options):
    decoder = Scripted(rows)
    tokens = generate_tokens(
        decoder, decoder.rows[0], make_sampler(strategy, seed=seed, **options), endings={}
    )
    return [token.id for token in tokens]


# Greedy


@pytest.mark.parametrize("vocabulary", [2, 5, 128, 300, BIG])
@pytest.mark.parametrize("strategy", [Greedy(), TopK(1), TopK(1, temperature=3.0), Temperature(1e-10)])
def test_greedy_takes_the_lowest_of_the_largest(vocabulary, strategy):
    values = random_logits(vocabulary)
    values[[vocabulary // 2, vocabulary - 1]] = 30.0
    assert take(make_sampler(strategy), values, 0)[0] == vocabulary // 2
    rows = mx.array(np.stack([values, np.zeros_like(values), -values]))
    assert sample_token(rows, strategy, mx.random.key(0)).tolist() == [
        vocabulary // 2,
        0,
        int((-values).argmax()),
    ]


def test_greedy_has_signed_zeros_equal():
    assert sample_token(mx.array([-1.0, -0.0, 0.0]), Greedy(), mx.random.key(0)).item() == 1


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("strategy", [Greedy(), *DRAWING], ids=str)
def test_half_precision_is_computed_in_float32(dtype, strategy):
    logits = mx.array(random_logits(600)).astype(dtype)
    key = mx.random.key(5)
    assert (
        sample_token(logits, strategy, key).item()
        == sample_token(logits.astype(mx.float32), strategy, key).item()
    )


def test_shapes_of_what_sample_token_takes():
    values = mx.array(random_logits(30))
    assert sample_token(values, TopK(3), mx.random.key(0)).shape == ()
    assert sample_token(values[None], TopK(3), mx.random.key(0)).shape == (1,)
    assert sample_token(mx.stack([values] * 4), TopK(3), mx.random.key(0)).shape == (4,)


# Penalties, bias, bans

PENALISING = [
    SamplingStrategy(repetition_penalty=1.5),
    SamplingStrategy(repetition_penalty=0.7, top_p=0.9),
    SamplingStrategy(repetition_penalty=3.0, repetition_window=1),
    SamplingStrategy(repetition_penalty=3.0, repetition_window=5, temperature=0.7),
    SamplingStrategy(repetition_penalty=3.0, repetition_window=1000),
    SamplingStrategy(presence_penalty=1.5, top_k=6),
    SamplingStrategy(frequency_penalty=0.9),
    SamplingStrategy(frequency_penalty=-2.0, presence_penalty=-1.0, min_p=0.05),
    SamplingStrategy(
        repetition_penalty=1.3,
        repetition_window=4,
        presence_penalty=0.5,
        frequency_penalty=0.4,
        logit_bias={3: 2.0, 5: -math.inf},
        min_tokens=6,
        temperature=1.4,
        top_k=9,
        top_p=0.95,
        min_p=0.01,
    ),
]


@pytest.mark.parametrize("strategy", PENALISING, ids=str)
@pytest.mark.parametrize("greedy", [False, True])
def test_a_penalised_text_is_drawn_from_the_references_distribution(strategy, greedy):
    """Compare each step after the same earlier draws, and its log-probabilities."""
    if greedy:
        changes = {name: getattr(strategy, name) for name in SamplingStrategy.__dataclass_fields__}
        strategy = SamplingStrategy(**{**changes, "temperature": 0.0})
    prompt, end, made = [2, 7, 7, 11], 9, []
    sampler = make_sampler(strategy, prompt=prompt, ending_ids=[end], logprobs=4)
    for step in range(24):
        values = random_logits(20, seed=step % 5)
        token, drawn = take(sampler, values, step)
        banned = [end] if step < strategy.min_tokens else []
        chances = probabilities(adjusted(values, strategy, prompt, made, banned), strategy)
        assert chances[token] > 0
        found = read_logprobs(drawn.logprobs)
        assert found.sampling_logprob == pytest.approx(math.log(chances[token]), abs=2e-5)
        assert found.model_logprob == pytest.approx(log_softmax(values)[token], abs=2e-5)
        made.append(token)


def test_a_repetition_is_penalised_once_and_within_its_window():
    """With logits 2.0, 1.8 and -1, the first is halved while it is among the last two tokens."""
    values = np.array([2.0, 1.8, -1.0], np.float32)
    sampler = make_sampler(
        SamplingStrategy(temperature=0, repetition_penalty=2.0, repetition_window=2), prompt=[2, 0, 0]
    )
    made = [take(sampler, values, step)[0] for step in range(6)]
    # Penalised: {0}, {0, 1}, {1, 0}, ...: both halved gives 0 again.
    assert made == [1, 0, 0, 1, 0, 0]


def test_the_prompt_counts_for_repetition_alone():
    values = np.array([2.0, 1.0], np.float32)
    for strategy, expected in (
        (SamplingStrategy(temperature=0, repetition_penalty=3.0), 1),
        (SamplingStrategy(temperature=0, presence_penalty=2.0), 0),
        (SamplingStrategy(temperature=0, frequency_penalty=2.0), 0),
    ):
        assert take(make_sampler(strategy, prompt=[0, 0, 0]), values, 0)[0] == expected


def test_the_frequency_penalty_counts_and_the_presence_penalty_does_not():
    values = np.array([2.0, 0.0], np.float32)

    def first(**penalty):
        return text_with(values, SamplingStrategy(temperature=0, **penalty)).count(0)

    def text_with(values, strategy):
        sampler = make_sampler(strategy)
        return [take(sampler, values, step)[0] for step in range(4)]

    assert first(presence_penalty=1.5) == 4
    assert first(frequency_penalty=0.9) == 3


def test_tokens_that_are_taken_back_are_forgotten():
    values = np.array([2.0, 1.5], np.float32)
    sampler = make_sampler(SamplingStrategy(temperature=0, presence_penalty=1.0))
    assert take(sampler, values, 0)[0] == 0
    sampler.take_back(1)
    assert take(sampler, values, 0)[0] == 0
    assert take(sampler, values, 1)[0] == 1


def test_end_tokens_come_after_min_tokens():
    values = np.array([9.0, 8.0, 1.0], np.float32)
    strategy = SamplingStrategy(temperature=0, min_tokens=3)
    assert [take(make_sampler(strategy, ending_ids=[0, 1]), values, step)[0] for step in range(5)] == [
        2
    ] * 3 + [0] * 2


@pytest.mark.parametrize("strategy", [Greedy(), *DRAWING], ids=str)
def test_bias_is_added_and_bans_hold(strategy):
    changes = {name: getattr(strategy, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    strategy = SamplingStrategy(**changes, logit_bias={4: -math.inf, 2: 100.0})
    values = np.zeros(6, np.float32)
    values[4] = 50
    assert text_of_constant(strategy, values) == {2}
    none = SamplingStrategy(**changes, logit_bias=dict.fromkeys(range(5), -math.inf))
    assert text_of_constant(none, values) == {5}


def text_of_constant(strategy, values):
    sampler = make_sampler(strategy)
    return {take(sampler, values, step)[0] for step in range(8)}


# Impossible draws


BROKEN = {"nan": math.nan, "inf": math.inf, "nothing": -math.inf}


def broken(kind, vocabulary):
    values = random_logits(vocabulary)
    values[slice(None) if kind == "nothing" else vocabulary - 1] = BROKEN[kind]
    return values


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("vocabulary", [1, 50, BIG])
@pytest.mark.parametrize("strategy", [Greedy(), *DRAWING], ids=str)
def test_no_token_comes_from_logits_that_are_not_finite(strategy, vocabulary, kind):
    with pytest.raises(LogitsError, match="not finite"):
        sample_token(mx.array(broken(kind, vocabulary)), strategy, mx.random.key(0))
    rows = mx.array(np.stack([random_logits(vocabulary), broken(kind, vocabulary)]))
    with pytest.raises(LogitsError, match="not finite"):
        sample_token(rows, strategy, mx.random.key(0))


def test_greedy_sees_nan_where_argmax_skips_it(monkeypatch):
    """Imitate argmax of MLX before 0.32.4, which skips NaN."""
    right = mx.argmax
    monkeypatch.setattr(mx, "argmax", lambda array, **where: right(mx.nan_to_num(array, nan=-1e9), **where))
    with pytest.raises(LogitsError, match="not finite"):
        sample_token(mx.array(broken("nan", BIG)), Greedy(), mx.random.key(0))


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("step", [0, 1, 4])
@pytest.mark.parametrize("vocabulary", [50, BIG])
@pytest.mark.parametrize("strategy", [Greedy(), TopK(5), TopP(0.9)], ids=str)
def test_the_step_without_a_token_is_named(strategy, vocabulary, kind, step):
    rows = [random_logits(vocabulary, seed=index) for index in range(5)]
    rows[step] = broken(kind, vocabulary)
    decoder = Scripted(rows)
    tokens = generate_tokens(decoder, decoder.rows[0], make_sampler(strategy), endings={})
    for _ in range(step):
        next(tokens)
    with pytest.raises(LogitsError, match=f"new token {step + 1}:"):
        next(tokens)


def test_banning_every_token_is_an_error():
    strategy = SamplingStrategy(logit_bias=dict.fromkeys(range(8), -math.inf))
    with pytest.raises(NoTokenLeftError, match="every token of the vocabulary is banned"):
        sample_token(mx.zeros(8), strategy, mx.random.key(0))
    with pytest.raises(NoTokenLeftError, match="new token 1") as caught:
        generate([np.zeros(8, np.float32)] * 3, strategy)
    assert caught.value.exit_code == ExitCode.CONFIGURATION


def test_a_ban_is_the_cause_though_the_model_gives_minus_infinity_too():
    strategy = SamplingStrategy(temperature=0.0, logit_bias={1: -math.inf, 2: -math.inf})
    for row in ([-math.inf, 1.0, 2.0], [0.0, 1.0, 2.0]):
        banned = strategy if row[0] else replace(strategy, logit_bias=((0, -math.inf), *strategy.logit_bias))
        with pytest.raises(NoTokenLeftError):
            sample_token(mx.array(row), banned, mx.random.key(0))


def test_so_many_draws_after_a_miss_search_the_whole_vocabulary():
    sampler = Sampler(TopP(0.9), RandomKeys(0), prompt=[1], capacity=99)
    missed = sampler.draw(mx.zeros((1, BIG)), 5)
    sampler.redraw(missed)
    whole = [index for index in range(6, 99) if sampler.searches_whole(index)]
    assert whole == list(range(6, 6 + DRAWS_AFTER_A_MISS))


@pytest.mark.parametrize("kind", BROKEN)
def test_logits_that_are_not_finite_are_the_model_s_fault(kind):
    strategy = SamplingStrategy(logit_bias=dict.fromkeys(range(8), -math.inf))
    with pytest.raises(LogitsError, match="not finite") as caught:
        sample_token(mx.array(broken(kind, 8)), strategy, mx.random.key(0))
    assert caught.value.exit_code == ExitCode.BAD_CHECKPOINT


@pytest.mark.parametrize("strategy", DRAWING, ids=str)
def test_an_error_leaves_later_draws_as_they_were(strategy):
    before = [random_logits(30, seed=step) for step in range(6)]
    expected = generate(before, strategy, seed=9)
    with pytest.raises(LogitsError):
        generate([before[0], broken("nan", 30), *before[2:]], strategy, seed=9)
    assert generate(before, strategy, seed=9) == expected
    sampler = make_sampler(strategy, seed=9)
    sampler.draw(mx.array(broken("nan", 30))[None], 0).outcomes.tolist()
    assert [take(sampler, row, step)[0] for step, row in enumerate(before)] == expected


@pytest.mark.parametrize("strategy", [TopP(0.95), TopP(0.9, temperature=2.0), TopK(40)], ids=str)
def test_uncertain_draws_give_the_text_of_the_whole_vocabulary(strategy):
    """Peaked logits with a few flat ones between them, which candidates cannot cover."""
    rows = [random_logits(BIG, seed=step, scale=0.1 if step % 4 == 2 else 6.0) for step in range(24)]
    uncertain = 0
    expected = []
    keys = RandomKeys(3)
    for index, row in enumerate(rows):
        uniform = mx.random.uniform(shape=(1, 1), key=keys.key(index))
        logits = mx.array(row)[None]
        expected.append(draw_once(logits, strategy, uniform, whole=True)[0].item())
        uncertain += draw_once(logits, strategy, uniform, whole=False)[1].item() == Status.UNCERTAIN
    assert generate(rows, strategy, seed=3) == expected
    assert uncertain > 0 or strategy.top_k


# Keys


def test_keys_differ_by_sequence_and_index_and_repeat():
    def made():
        return [
            tuple(RandomKeys(7, sequence).key(index).tolist())
            for sequence in range(20)
            for index in range(20)
        ]

    first = made()
    assert len(set(first)) == 400
    assert made() == first


def test_keys_differ_by_seed():
    keys = {tuple(RandomKeys(seed, sequence).key(3).tolist()) for seed in range(8) for sequence in range(8)}
    assert len(keys) == 64


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_every_seed_can_be_used(seed):
    assert text_of(Temperature(1.0), seed=seed) == text_of(Temperature(1.0), seed=seed)


def test_the_halves_of_a_seed_both_count():
    texts = {tuple(text_of(Temperature(1.0), seed=seed)) for seed in (5, 5 + 2**32, 5 + 2**63)}
    assert len(texts) == 3


def test_a_chosen_seed_is_a_valid_setting():
    seeds = {choose_seed() for _ in range(20)}
    assert len(seeds) > 1
    assert all(SETTINGS["seed"].check(seed) == seed for seed in seeds)


def test_numbers_from_keys_are_uniform_and_do_not_follow_each_other():
    """Over 64 texts and 64 tokens, means are within 5 standard deviations."""
    draws = [
        mx.random.uniform(shape=(1,), key=keys.key(index))
        for keys in (RandomKeys(1, sequence) for sequence in range(64))
        for index in range(64)
    ]
    numbers = np.array(mx.concatenate(draws), dtype=np.float64).reshape(64, 64) - 0.5
    count = numbers.size
    assert abs(numbers.mean()) < 5 * math.sqrt(1 / 12 / count)
    assert abs((numbers**2).mean() - 1 / 12) < 5 * math.sqrt(1 / 180 / count)
    for neighbors in (numbers[:, 1:] * numbers[:, :-1], numbers[1:] * numbers[:-1]):
        assert abs(neighbors.mean()) < 5 * (1 / 12) / math.sqrt(neighbors.size)


@pytest.mark.parametrize("strategy", [*DRAWING, *PENALISING[:4]], ids=str)
def test_the_process_wide_random_state_is_neither_read_nor_changed(strategy):
    mx.random.seed(1)
    before = [state.tolist() for state in mx.random.state]
    first = text_of(strategy, seed=4)
    token = sample_token(mx.array(random_logits(40)), strategy, mx.random.key(2)).item()
    assert [state.tolist() for state in mx.random.state] == before
    mx.random.seed(2)
    assert text_of(strategy, seed=4) == first
    assert sample_token(mx.array(random_logits(40)), strategy, mx.random.key(2)).item() == token


def test_a_draw_depends_on_seed_sequence_and_index_only():
    """Draw other texts between its tokens, or its own later tokens first."""
    alone = text_of(Temperature(1.0), sequence=1)
    rows = [random_logits(20, seed=step) for step in range(12)]
    one, two = (make_sampler(Temperature(1.0), sequence=sequence) for sequence in (0, 1))
    mixed = [(take(one, row, step)[0], take(two, row, step)[0]) for step, row in enumerate(rows)]
    assert [second for _, second in mixed] == alone
    assert [first for first, _ in mixed] != alone
    again = make_sampler(Temperature(1.0), sequence=1)
    backwards = [take(again, rows[step], step)[0] for step in reversed(range(12))]
    assert backwards[::-1] == alone


def test_sample_token_draws_each_row_independently():
    rows = mx.array(np.stack([random_logits(50, seed=seed) for seed in range(6)]))
    key = mx.random.key(1)
    firsts = {int(sample_token(rows[:count], Temperature(2.0), key)[0].item()) for count in range(1, 7)}
    assert len(firsts) == 1


# Log-probabilities


@pytest.mark.parametrize("vocabulary", [3, 700, BIG])
@pytest.mark.parametrize("strategy", [Greedy(), *DRAWING], ids=str)
def test_logprobs_equal_those_of_the_reference(strategy, vocabulary):
    for top in (0, 1, 5, 100):
        values = np.round(random_logits(vocabulary, seed=top), 2)
        token, drawn = take(make_sampler(strategy, logprobs=top), values, 0)
        found = read_logprobs(drawn.logprobs)
        expected = log_softmax(values)
        chances = probabilities(values, strategy)
        assert found.model_logprob == pytest.approx(expected[token], abs=1e-4)
        assert found.sampling_logprob == pytest.approx(math.log(chances[token]), abs=1e-4)
        order = np.argsort(-values, kind="stable")[:top]
        assert [token for token, _ in found.top_model_logprobs] == order.tolist()
        made = [value for _, value in found.top_model_logprobs]
        np.testing.assert_allclose(made, expected[order], atol=1e-4)


def test_the_models_logprobs_are_before_bias_and_temperature():
    values = random_logits(50)
    strategy = SamplingStrategy(temperature=0.5, logit_bias={3: 50.0})
    token, drawn = take(make_sampler(strategy, logprobs=1), values, 0)
    found = read_logprobs(drawn.logprobs)
    assert token == 3
    assert found.model_logprob == pytest.approx(log_softmax(values)[3], abs=1e-5)
    assert found.sampling_logprob == pytest.approx(0, abs=1e-5)
    assert found.top_model_logprobs[0][0] == values.argmax()


def test_logprobs_do_not_change_the_draw():
    for strategy in (*DRAWING, *PENALISING):
        assert text_of(strategy, logprobs=3) == text_of(strategy)


# Strategies as values


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "temperature": [-0.1, math.nan, math.inf, "1", True, None, [1.0]],
        "top_k": [-2, 1.5, "5", True, False],
        "top_p": [0, 0.0, -0.1, 1.0001, math.nan, "0.9", True],
        "min_p": [-0.1, 1.1, math.nan, "0", False],
        "repetition_penalty": [0, -1.0, math.nan, math.inf, None],
        "repetition_window": [0, -2, 2.0, True],
        "presence_penalty": [-2.1, 2.1, math.nan, None],
        "frequency_penalty": [-2.1, 2.1, math.nan, "1"],
        "min_tokens": [-1, 1.0, None, True],
        "logit_bias": [{-1: 1.0}, {0: math.nan}, {0: math.inf}, {0: 1e5}, {"a": 1.0}, {1.5: 1.0}, {0: "x"}],
    }.items(),
)
def test_every_parameter_is_checked_and_named(name, values):
    for value in values:
        with pytest.raises(UsageError) as caught:
            SamplingStrategy(**{name: value})
        assert caught.value.message.startswith(name), value


@pytest.mark.parametrize("value", [5, None, "abc", [1], [(1, 2, 3)]], ids=repr)
def test_a_bias_that_is_no_mapping_is_named(value):
    with pytest.raises(UsageError, match="logit_bias"):
        SamplingStrategy(logit_bias=value)


def test_the_edges_of_every_range_are_allowed():
    SamplingStrategy(temperature=0, top_k=1, top_p=1, min_p=1, repetition_penalty=0.01, repetition_window=1)
    SamplingStrategy(top_p=5e-324, min_p=0, presence_penalty=-2, frequency_penalty=2, min_tokens=0)
    SamplingStrategy(logit_bias={0: -1e4, 1: 1e4, 2: -math.inf})


@pytest.mark.parametrize("token", [8, 13, 1000])
def test_a_bias_beyond_the_vocabulary_is_refused(token):
    for strategy in (Greedy(), *DRAWING):
        changes = {name: getattr(strategy, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        biased = SamplingStrategy(**changes, logit_bias={token: 1.0})
        with pytest.raises(UsageError, match=f"token {token}"):
            sample_token(mx.zeros((2, 8)), biased, mx.random.key(0))


def test_sample_token_and_generate_check_the_vocabulary():
    require_vocabulary(SamplingStrategy(logit_bias={7: 1.0}), 8)
    with pytest.raises(UsageError, match="token 8, and the vocabulary ends at 7"):
        require_vocabulary(SamplingStrategy(logit_bias={8: 1.0}), 8)


def test_strategies_compare_and_hash_as_values():
    assert Greedy() == SamplingStrategy(temperature=0)
    assert TopK(5) == TopK(5, temperature=1) != TopK(6)
    assert TopP(0.9, temperature=0.7) == SamplingStrategy(temperature=0.7, top_p=0.9)
    one = SamplingStrategy(logit_bias={3: 1.0, 1: 2.0})
    two = SamplingStrategy(logit_bias=((1, 2.0), (3, 1.0)))
    assert one == two
    assert len({one, two, Greedy(), TopK(5), TopK(5)}) == 3
    with pytest.raises(AttributeError):
        one.temperature = 2.0


@pytest.mark.parametrize(
    ("strategy", "text"),
    [
        (Greedy(), "greedy"),
        (TopK(1), "greedy"),
        (Temperature(0.7), "temperature 0.7"),
        (TopK(50), "temperature 1, top-k 50"),
        (SamplingStrategy(top_k=0, top_p=1.0, min_p=0, repetition_window=9), "temperature 1"),
        (SamplingStrategy(top_k=20, top_p=0.9, min_p=0.05), "temperature 1, top-k 20, top-p 0.9, min-p 0.05"),
        (
            SamplingStrategy(temperature=0, top_p=0.9, repetition_penalty=1.1),
            "greedy, repetition penalty 1.1",
        ),
        (
            SamplingStrategy(min_tokens=3, logit_bias={1: 2.0}),
            "temperature 1, min tokens 3, bias on 1 tokens",
        ),
    ],
)
def test_a_strategy_prints_the_steps_that_do_something(strategy, text):
    assert str(strategy) == text


@pytest.mark.parametrize("strategy", PENALISING, ids=str)
def test_the_repr_of_a_strategy_is_valid_python(strategy):
    assert eval(repr(strategy), {"SamplingStrategy": SamplingStrategy, "inf": math.inf}) == strategy


def test_whole_numbers_are_printed_whole():
    assert str(TopK(1_234_567)) == "temperature 1, top-k 1234567"


VOCABULARY = 1000
TOKENIZER = SimpleNamespace(vocab_size=VOCABULARY, id_of=lambda name: None)


def numbers(low, high, **options):
    return st.floats(low, high, allow_nan=False, **options)


strategies = st.builds(
    SamplingStrategy,
    temperature=numbers(0, 1000) | st.integers(0, 3),
    top_k=st.none() | st.integers(1, 10**12),
    top_p=st.none() | numbers(0, 1, exclude_min=True) | st.just(1),
    min_p=st.none() | numbers(0, 1),
    repetition_penalty=numbers(0.01, 100),
    repetition_window=st.none() | st.integers(1, 10**9),
    presence_penalty=numbers(-2, 2),
    frequency_penalty=numbers(-2, 2),
    logit_bias=st.dictionaries(
        st.integers(0, VOCABULARY - 1), numbers(-1e4, 1e4) | st.just(-math.inf), max_size=5
    ),
    min_tokens=st.integers(0, 10**9),
)


@given(strategies)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_strategy_goes_to_toml_and_back(strategy):
    toml = to_toml(strategy)
    tomllib.loads(toml)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "strategy.toml"
        path.write_text(toml)
        assert strategy_from(resolve_settings(config_file=path), TOKENIZER, ()) == strategy


@given(strategies)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_a_strategy_goes_to_flags_and_back(strategy):
    words = to_flags(strategy)
    assert all(isinstance(word, str) for word in words)
    given = {}
    for flag, value in list(pairwise(words))[::2]:
        name = flag.removeprefix("--").replace("-", "_")
        assert SETTINGS[name].flag == flag
        given.setdefault(name, []).append(value)
    flags = {name: texts if len(texts) > 1 else texts[0] for name, texts in given.items()}
    assert strategy_from(override_with_flags(Settings(), flags), TOKENIZER, ()) == strategy


@given(strategies)
@settings(max_examples=50, deadline=None, derandomize=True)
def test_equal_strategies_have_equal_hashes(strategy):
    fields = {name: getattr(strategy, name) for name in SamplingStrategy.__dataclass_fields__}
    other = SamplingStrategy(**{**fields, "logit_bias": dict(reversed(strategy.logit_bias))})
    assert other == strategy
    assert hash(other) == hash(strategy)


def test_nothing_set_is_greedy_and_anything_set_draws():
    assert strategy_from(Settings(), TOKENIZER, ()) == Greedy()
    assert strategy_from(override_with_flags(Settings(), {"top_p": "0.9"}), TOKENIZER, ()) == TopP(0.9)
