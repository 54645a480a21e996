"""Texts whose guides are asked after a draw is built: they are those of guides that are asked before it."""

from itertools import product

import mlx.core as mx
import pytest
from cpp_kernel import CppKernels, needs_compiler
from doubtful_sampler import doubtful_sampler
from on_device import cpu_only
from repeating_guides import CAPACITY, GUIDES, MOST, PROMPT, SETS, hand_over_early, text_of
from scripted_guide import ScriptedGuide
from speculated import STRATEGIES, decoder_for, sampler_for
from tiny_checkpoint import hybrid_configs, tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.expectations import Expectations
from metal_gen.engine.guided import generate_guided_tokens
from metal_gen.models.kernels.choice import BY_KERNEL
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.kernels.fitted import fitted
from metal_gen.sampling.logits_error import LogitsError

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

# Guides whose doubtful draws are tried in every run.
DOUBTFUL = ("by the last", "runs and others", "often forced")
HEADS = {"head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}


class NoExpectations(Expectations):
    """Leaves open what comes."""

    def after(self, allowed):
        return None


@pytest.fixture(params=[False, True], ids=["in turn", "early"], autouse=True)
def is_early(request, monkeypatch):
    if request.param:
        hand_over_early(monkeypatch)


def assert_as_without_expectations(decoder, new_guide, strategy, **text):
    expectations, guides = decoder.expectations, [new_guide(), new_guide()]
    decoder.expectations = NoExpectations()
    expected, position, held = text_of(decoder, guides[0], strategy, **text)
    decoder.expectations = expectations
    # What was learned from the first one is expected of the second.
    for _ in range(2):
        guides[1].tokens, guides[1].asked_at, guides[1].prepared_at = [], [], []
        tokens, reached, found = text_of(decoder, guides[1], strategy, **text)
        assert tokens == expected
        assert guides[1].asked_at == guides[1].prepared_at == guides[0].asked_at
        common = min(position, reached)
        assert common >= len(PROMPT) + len(tokens) - 1 - 4
        for one, other in zip(held, found, strict=True):
            assert first_of(one, common) == first_of(other, common)


def first_of(buffer, count):
    """What a buffer, (1, H, S, D), has of the first tokens."""
    return [head[:count] for head in buffer[0]]


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        *product(GUIDES, ["flat", "penalties"]),
        ("runs and others", "bias"),
        *(pytest.param(name, "greedy", marks=pytest.mark.release) for name in GUIDES),
    ],
)
def test_texts_are_those_without_expectations(tiny_model, make_cache, name, strategy):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    assert_as_without_expectations(decoder, GUIDES[name], STRATEGIES[strategy])


@pytest.mark.parametrize("name", ["runs and others", "answer"])
def test_log_probabilities_are_those_without_expectations(tiny_model, make_cache, name):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    assert_as_without_expectations(decoder, GUIDES[name], STRATEGIES["flat"], logprobs=3)


@pytest.mark.parametrize(
    "name",
    [name if name in DOUBTFUL else pytest.param(name, marks=pytest.mark.release) for name in GUIDES],
)
def test_doubtful_draws_are_those_without_expectations(tiny_model, make_cache, name):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    redrawn = []
    kind = doubtful_sampler(redrawn)
    assert_as_without_expectations(decoder, GUIDES[name], STRATEGIES["penalties"], kind=kind)
    assert redrawn


@pytest.mark.parametrize("name", ["now and then", "by the last", "runs and others", "often forced"])
def test_compiled_texts_are_those_without_expectations(tiny_model, make_cache, name):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY), compiles=True)
    assert_as_without_expectations(decoder, GUIDES[name], STRATEGIES["sampled"])


def test_hybrids_give_the_texts_without_expectations(tmp_path, make_cache):
    config = dict(hybrid_configs())["qwen3_5-untied"]
    model = Checkpoint(write_checkpoint(tmp_path, config)).weights.load("float32")
    decoder = decoder_for(model, make_cache(model, max_seq_len=CAPACITY))
    assert_as_without_expectations(decoder, GUIDES["runs and others"], STRATEGIES["flat"])


@needs_compiler
@cpu_only
@pytest.mark.parametrize("is_early", [False], indirect=True, ids=["by kernel"])
@pytest.mark.parametrize(("name", "compiles"), [*product(["qwen3", "qwen3_5"], [False, True])])
def test_texts_of_kernels_are_those_without_expectations(
    tmp_path, monkeypatch, programs, make_cache, name, compiles
):
    kernels = CppKernels(programs)
    monkeypatch.setattr(Code, "__call__", kernels.as_method)
    config = tiny_config("qwen3", **HEADS)
    if name == "qwen3_5":
        config = {**dict(hybrid_configs())["qwen3_5-untied"], **HEADS}
    model = Checkpoint(write_checkpoint(tmp_path, config)).weights.load("float32")
    by_kernel = fitted(model, ModelKernels(attention=BY_KERNEL))
    decoder = decoder_for(by_kernel, make_cache(by_kernel, max_seq_len=CAPACITY), compiles=compiles)
    assert decoder.hands_over_early
    assert_as_without_expectations(decoder, GUIDES["runs and others"], STRATEGIES["flat"], most=60)
    assert kernels.names


def test_a_guide_that_fails_where_the_same_was_expected_ends_the_text(tiny_model, make_cache):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    guide = ScriptedGuide(lambda tokens: [] if len(tokens) == 33 else SETS[0])
    with pytest.raises(LogitsError, match="token 34"):
        text_of(decoder, guide, STRATEGIES["greedy"])
    assert len(guide.tokens) == 33
    assert set(guide.tokens) <= set(SETS[0])


@pytest.mark.parametrize("is_early", [False], indirect=True, ids=["in turn"])
@pytest.mark.parametrize("kind", ["now and then", "often forced"])
def test_the_cache_is_still_written_in_place(tiny_model, make_cache, kind):
    """Without a kernel, a second handle on the buffers would have MLX copy them."""
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=20_000))
    cache, sampler = decoder.cache, sampler_for(PROMPT, STRATEGIES["greedy"], capacity=20_000)
    logits = decoder.prefill(PROMPT)
    mx.eval(logits, cache.buffers)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    tokens = generate_guided_tokens(decoder, logits, sampler, GUIDES[kind](), endings={}, max_tokens=MOST)
    assert len(list(tokens)) == MOST
    assert mx.get_peak_memory() - before < cache.nbytes / 2
