"""Guesses that are handed over behind a pass, before its tokens are known, are those made afterwards."""

import random
from dataclasses import replace

import mlx.core as mx
import pytest
from cpp_kernel import CppKernels, needs_compiler
from on_device import cpu_only
from speculated import STRATEGIES, decoder_for, guessed_text, plain_text, sampler_for
from story_model import write_story_model

from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.models.cache_size import cache_size
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.kernels.fitted import fitted
from metal_gen.speculation.lookup import Lookup
from metal_gen.speculation.mtp import MtpSource
from metal_gen.speculation.planning import plan_mtp
from metal_gen.speculation.source import RunningPass, SamplerDraw
from metal_gen.speculation.together import Together

pytestmark = [pytest.mark.metal, needs_compiler, cpu_only]

CAPACITY, PROMPT, DEPTH = 72, [511, 17, 60, 8, 41, 22], 3


@pytest.fixture(autouse=True)
def by_cpp(monkeypatch, programs, without_fusing):
    """Kernels run as C++. What MLX would compile runs as it is."""
    monkeypatch.setattr(Code, "__call__", CppKernels(programs).as_method)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A trained target, the same with the kernel, and a function that makes a source."""
    checkpoint = Checkpoint(write_story_model(tmp_path_factory.mktemp("stories")))
    target = checkpoint.weights.load("float32")
    by_kernel = fitted(target, by_kernel=True, kernels=False)
    planned = plan_mtp(Settings(), checkpoint, "float32")

    def make():
        plain = planned.load(target, CAPACITY)
        return MtpSource(by_kernel, plain._heads, plain._cache, compiled_rows=DEPTH + 1)

    return target, by_kernel, make


def decoder_of(model, *, compiles):
    size = cache_size(model.config, max_seq_len=CAPACITY, dtype="float32")
    return decoder_for(model, new_cache(replace(size, most_replayed=DEPTH + 1)), compiles=compiles)


@pytest.fixture
def used(monkeypatch):
    """Whether each guess was made behind the pass before."""
    found, taken = [], MtpSource._taken_following

    def spied(self, count):
        made = taken(self, count)
        found.append(made is not None)
        return made

    monkeypatch.setattr(MtpSource, "_taken_following", spied)
    return found


def guess_afterwards(monkeypatch):
    monkeypatch.setattr(MtpSource, "guess_after", lambda self, running, choose: None)


@pytest.mark.parametrize("strategy", ["greedy", "sampled"])
def test_texts_and_guesses_stay_the_same(made, used, monkeypatch, strategy):
    target, by_kernel, make = made
    plain, decoder = decoder_of(target, compiles=False), decoder_of(by_kernel, compiles=True)
    expected = plain_text(plain, PROMPT, sampler_for(PROMPT, STRATEGIES[strategy]))

    def text():
        sampler = sampler_for(PROMPT, STRATEGIES[strategy])
        return guessed_text(decoder, PROMPT, sampler, make(), depth=DEPTH, rows_apart=False)

    found, ahead = text()
    assert found == expected
    assert sum(used) > len(used) / 2
    # Some passes accept several guesses, and some none.
    assert ahead.counts.passes < ahead.counts.tokens < ahead.counts.drafted
    guess_afterwards(monkeypatch)
    found, afterwards = text()
    assert found == expected
    assert ahead.counts == afterwards.counts


def test_other_tokens_than_the_pass_gave_make_them_useless(made, used):
    target, _, make = made
    chance, ids = random.Random(3), list(PROMPT)
    sampler = sampler_for(ids, STRATEGIES["sampled"])
    sources, found = [make(), make()], []

    def states(count):
        return mx.random.normal((count, target.config.hidden_size), key=mx.random.key(len(ids)))

    for source in sources:
        source.begin(ids, 0)
        source.prefilled(states(len(ids))[None])
        source.accepted([9], None)
        source.accepted([8], states(1))
    ids += [9, 8]
    while len(ids) < CAPACITY - 2 * DEPTH:
        draw = SamplerDraw(sampler, len(ids) - len(PROMPT))
        wanted = chance.choice([DEPTH, DEPTH, 2])
        found = [source.guess(lambda kind, wanted=wanted: wanted, draw) for source in sources]
        guesses = found[0].tokens.tolist()
        assert guesses == found[1].tokens.tolist()
        # The target draws some tokens as guessed. What is read may end before, or be another token.
        drawn = [token + (chance.random() < 0.4) for token in [*guesses, 5]]
        hidden = states(len(drawn))
        outcomes = mx.array([*drawn, *[0] * len(drawn)], mx.int32)
        running = RunningPass(found[0], outcomes, hidden, sampler, draw.index)
        sources[0].guess_after(running, lambda kind: DEPTH)
        added = running.added
        kind = chance.choice(["all", "all", "fewer", "another"])
        if kind == "fewer":
            added = added[: max(len(added) - 1, 1)]
        elif kind == "another":
            added = [*added[:-1], added[-1] + 1]
        for source in sources:
            source.accepted(added, hidden[: len(added)])
        ids += added
        if chance.random() < 0.2:
            for source in sources:
                source.take_back(1)
            del ids[-1]
            for source in sources:
                source.accepted([7], states(1))
            ids.append(7)
    assert used.count(True) > 2
    assert used[::2].count(False) > 2


def test_other_guesses_come_in_between(made, used):
    target, by_kernel, make = made
    prompt = [*PROMPT, *PROMPT]
    plain, decoder = decoder_of(target, compiles=False), decoder_of(by_kernel, compiles=True)
    expected = plain_text(plain, prompt, sampler_for(prompt, STRATEGIES["greedy"]))
    source = Together([Lookup(CAPACITY), make()])
    for _ in range(2):
        sampler = sampler_for(prompt, STRATEGIES["greedy"])
        found, _ = guessed_text(decoder, prompt, sampler, source, depth=DEPTH, rows_apart=False)
        assert found == expected
    assert any(used)
