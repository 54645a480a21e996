"""Guesses of MTP layers in one compiled function are those made one by one."""

import random

import mlx.core as mx
import numpy as np
import pytest
from cpp_kernel import CppKernels, needs_compiler
from mtp_checkpoint import write_mtp_checkpoint
from on_device import cpu_only
from speculated import STRATEGIES, decoder_of, guessed_text, plain_text, sampler_for
from tiny_checkpoint import hybrid_configs

from metal_gen.cache.hybrid import new_cache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.config.settings import Settings
from metal_gen.models.cache_size import cache_size
from metal_gen.models.kernels.choice import BY_KERNEL
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.kernels.fitted import fitted
from metal_gen.speculation.mtp.source import MtpSource
from metal_gen.speculation.planning import plan_mtp
from metal_gen.speculation.source import GuessDraw

pytestmark = [pytest.mark.metal, needs_compiler, cpu_only]

CAPACITY, PROMPT = 60, [3, 17, 60, 8, 41, 22]
HEADS = {"head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.fixture(autouse=True)
def by_cpp(monkeypatch, programs, without_fusing):
    """Kernels run as C++. What MLX would compile runs as it is."""
    monkeypatch.setattr(Code, "__call__", CppKernels(programs).as_method)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The target, the target with the kernel, and a function that makes a source for one of them."""
    folder = tmp_path_factory.mktemp("model")
    write_mtp_checkpoint(folder, {**dict(hybrid_configs())["qwen3_5_text-alone"], **HEADS})
    checkpoint = Checkpoint(folder)
    target = checkpoint.weights.load("float32")
    by_kernel = fitted(target, ModelKernels(attention=BY_KERNEL))
    planned = plan_mtp(Settings(), checkpoint, "float32")

    def make(rows=None):
        source = planned.load(target, CAPACITY)
        return (
            source if rows is None else MtpSource(by_kernel, source._heads, source._cache, compiled_rows=rows)
        )

    return target, by_kernel, make


@pytest.mark.parametrize("strategy", ["greedy", "sampled"])
def test_guesses_are_those_made_one_by_one(made, strategy):
    target, _, make = made
    chance, sources = random.Random(strategy), [make(), make(4)]
    ids = list(PROMPT)
    sampler = sampler_for(ids, STRATEGIES[strategy])

    def states():
        cache = new_cache(cache_size(target.config, max_seq_len=CAPACITY, dtype="float32"))
        return target(mx.array([ids]), cache)[0]

    for source in sources:
        source.begin(ids, 0)
        source.prefilled(states()[None])
    # Up to the end of the cache, where guesses are made one by one; more tokens than usual come at once.
    while len(ids) < CAPACITY - 4:
        new = [chance.randrange(64) for _ in range(min(chance.choice([1, 2, 4, 9]), CAPACITY - len(ids) - 3))]
        begin = len(ids) - 1
        ids += new
        count = chance.choice([1, 2, 3])
        found = []
        for source in sources:
            source.accepted(new, states()[begin:-1])
            draw = GuessDraw(sampler, len(ids) - len(PROMPT))
            found.append(np.array(source.guess(lambda kind, count=count: count, draw).tokens).tolist())
        assert found[0] == found[1]
        if chance.random() < 0.2:
            for source in sources:
                source.take_back(1)
            del ids[-1]
    assert sources[1].compiled_count > 1
    position = sources[0]._cache.position
    for one, other in zip(sources[0]._cache.buffers, sources[1]._cache.buffers, strict=True):
        assert mx.allclose(one[:, :, :position], other[:, :, :position], atol=1e-4)


def test_functions_are_few_and_reused(made):
    target, _, make = made
    source, ids = make(4), list(PROMPT)
    sampler = sampler_for(ids, STRATEGIES["greedy"])
    hidden = mx.zeros((1, target.config.hidden_size))
    source.begin(ids, 0)
    source.prefilled(mx.broadcast_to(hidden, (1, len(ids), hidden.shape[1])))
    for count in [*range(1, 25), *range(1, 25)]:
        source.accepted([9] * count, mx.broadcast_to(hidden, (count, hidden.shape[1])))
        assert source.guess(lambda kind: 1, GuessDraw(sampler, 0)).tokens.size == 1
        source.take_back(count)
    # 4, 5, 9, 17 and 33 rows.
    assert source.compiled_count == 5


def test_a_function_of_one_pair_is_refused(made):
    _, _, make = made
    with pytest.raises(AssertionError):
        make(1)


@pytest.mark.parametrize("strategy", ["greedy", "sampled", "penalties"])
def test_texts_are_the_plain_ones(made, strategy):
    target, by_kernel, make = made
    plain, decoder = decoder_of(target, compiles=False), decoder_of(by_kernel, compiles=True)
    expected = plain_text(plain, PROMPT, sampler_for(PROMPT, STRATEGIES[strategy]))
    source = make(5)
    found, speculation = guessed_text(
        decoder, PROMPT, sampler_for(PROMPT, STRATEGIES[strategy]), source, depth=3, rows_apart=False
    )
    assert found == expected
    assert speculation.counts.drafted
    assert (source.compiled_count > 0) == (strategy != "penalties")
