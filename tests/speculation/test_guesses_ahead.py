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
from metal_gen.models.kernels.choice import BY_KERNEL
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.kernels.fitted import fitted
from metal_gen.speculation.depth import Depths
from metal_gen.speculation.lookup import Lookup
from metal_gen.speculation.mtp.source import MtpSource
from metal_gen.speculation.planning import plan_mtp
from metal_gen.speculation.source import GuessDraw, RunningPass
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
    by_kernel = fitted(target, ModelKernels(attention=BY_KERNEL))
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
        draw = GuessDraw(sampler, len(ids) - len(PROMPT))
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


def test_the_same_tokens_at_a_later_position_make_them_useless(made, monkeypatch):
    target, _, make = made
    monkeypatch.setattr("metal_gen.speculation.mtp.source.MOST_WAITING", 16)
    ids, sources, draws = list(PROMPT), [make(), make()], iter(range(100))
    sampler = sampler_for(ids, STRATEGIES["greedy"])

    def states(count):
        return mx.random.normal((count, target.config.hidden_size), key=mx.random.key(next(draws)))

    def accept(tokens, hidden):
        ids.extend(tokens)
        for source in sources:
            source.accepted(tokens, hidden)

    def guesses():
        draw = GuessDraw(sampler, len(ids) - len(PROMPT))
        return [source.guess(lambda kind: DEPTH, draw) for source in sources]

    hidden = states(len(ids))
    for source in sources:
        source.begin(ids, 0)
        source.prefilled(hidden[None])
    accept([9], None)
    accept([8], states(1))
    ahead, _ = guesses()
    hidden, outcomes = states(DEPTH + 1), [ahead.tokens[0].item() + 1, *[0] * (2 * DEPTH + 1)]
    running = RunningPass(ahead, mx.array(outcomes, mx.int32), hidden, sampler, len(ids) - len(PROMPT))
    sources[0].guess_after(running, lambda kind: DEPTH)
    accept(running.added, hidden[:1])
    # Another source guesses until no pairs wait; then a pass gives the same token.
    while sources[0]._pairs.waiting is not None:
        accept(list(range(9)), states(9))
    accept(running.added, states(1))
    one, other = guesses()
    assert one.tokens.tolist() == other.tokens.tolist()
    assert sources[0]._cache.position == sources[1]._cache.position


def test_no_more_are_handed_over_than_the_text_may_have(made, monkeypatch):
    _, by_kernel, make = made
    decoder, source = decoder_of(by_kernel, compiles=True), make()
    guess_after, end_text = MtpSource.guess_after, MtpSource.end_text
    handed, choices, left = [], [], []

    def spied_after(self, running, choose):
        guess_after(self, running, choose)
        if self._following is not None:
            handed.append((running.index, self._following[2].size))

    def spied_end(self):
        left.append(self._following is not None)
        end_text(self)

    def spied_choice(self, kind):
        choices.append(kind)
        return self.choose(kind)

    monkeypatch.setattr(MtpSource, "guess_after", spied_after)
    monkeypatch.setattr(MtpSource, "end_text", spied_end)
    monkeypatch.setattr(Depths, "choose_ahead", spied_choice)
    for most in range(6, 13):
        handed.clear()
        choices.clear()
        sampler = sampler_for(PROMPT, STRATEGIES["greedy"])
        found, _ = guessed_text(decoder, PROMPT, sampler, source, most=most, depth=DEPTH, rows_apart=False)
        assert len(found) == most
        # The pass gives at least one token, and one is drawn after the guesses.
        assert all(index + 1 + count + 1 <= most for index, count in handed)
        # No choice of a depth is used up for nothing.
        assert len(choices) == len(handed) > 0
        assert source._following is None
    # Some texts have ended with the pass before the guesses.
    assert any(left)


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
