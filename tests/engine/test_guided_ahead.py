"""Texts whose guides are asked after a draw is built: they are those of guides that are asked before it."""

from itertools import product

import mlx.core as mx
import pytest
from cpp_kernel import CppKernels, needs_compiler
from doubtful_sampler import doubtful_sampler
from on_device import cpu_only
from scripted_guide import ScriptedGuide
from speculated import ENDINGS, STRATEGIES, decoder_for, described, sampler_for
from tiny_checkpoint import hybrid_configs, tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine import guided
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.expectations import LEAST_SURE, Expectations
from metal_gen.engine.guided import generate_guided_tokens
from metal_gen.models.kernels.choice import BY_KERNEL
from metal_gen.models.kernels.chosen import ModelKernels
from metal_gen.models.kernels.dialect import Code
from metal_gen.models.kernels.fitted import fitted
from metal_gen.sampling.logits_error import LogitsError

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

CAPACITY, MOST, PROMPT = 300, 150, [5, 6, 7]
SETS = [[3, 9, 17, 25, 40], [4, 9, 17, 33, 41, 60], [10, 20, 30]]
HEADS = {"head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2}


def places(tokens, period):
    return len(tokens) // period, len(tokens) % period


def now_and_then(tokens):
    """A string, with something else at every 23rd place."""
    return SETS[places(tokens, 23)[1] == 22]


def in_turn(tokens):
    return SETS[len(tokens) % 3]


def by_the_last(tokens):
    return SETS[0] if not tokens or tokens[-1] % 5 else SETS[1]


def answer(tokens):
    return None if len(tokens) < 40 else now_and_then(tokens)


def runs(tokens):
    """After strings of several lengths, two or three tokens."""
    string, place = places(tokens, 31)
    return [50 + string, 51, 52][: 2 + string % 2] if place == 11 + 3 * string else []


def often(tokens):
    """Forced tokens come at the same place in turn, and once they do not."""
    return [11, 12] if len(tokens) % 5 == 2 and not 60 < len(tokens) < 90 else []


GUIDES = {
    "same": lambda: ScriptedGuide(lambda tokens: SETS[0]),
    "all": ScriptedGuide,
    "now and then": lambda: ScriptedGuide(now_and_then),
    "in turn": lambda: ScriptedGuide(in_turn),
    "by the last": lambda: ScriptedGuide(by_the_last),
    "answer": lambda: ScriptedGuide(answer),
    "runs": lambda: ScriptedGuide(lambda tokens: SETS[0], runs),
    "runs and others": lambda: ScriptedGuide(now_and_then, runs),
    "often forced": lambda: ScriptedGuide(in_turn, often),
    "ends": lambda: ScriptedGuide(now_and_then, ends=lambda tokens: len(tokens) >= 47),
}


class NoExpectations(Expectations):
    """Leaves open what comes."""

    def after(self, allowed):
        return None


@pytest.fixture
def early(monkeypatch):
    """Hand steps over as with a kernel. MLX then copies the cache, which changes nothing else."""
    monkeypatch.setattr(Decoder, "hands_over_early", property(lambda decoder: True))


def text_of(decoder, guide, strategy, *, logprobs=None, most=MOST, **kind):
    """The text, and the keys and values that are left."""
    cache = decoder.cache
    cache.clear()
    sampler = sampler_for(PROMPT, strategy, logprobs=logprobs, **kind)
    tokens = described(
        generate_guided_tokens(
            decoder, decoder.prefill(PROMPT), sampler, guide, endings=ENDINGS, max_tokens=most
        )
    )
    assert guide.tokens == [token for token, *_ in tokens]
    cache.evaluate()
    return tokens, cache.position, [buffer.tolist() for buffer in cache.buffers]


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
    ("name", "strategy", "is_early"),
    [*product(GUIDES, ["greedy", "flat", "penalties"], [False, True]), ("runs and others", "bias", True)],
)
def test_texts_are_those_without_expectations(tiny_model, make_cache, request, name, strategy, is_early):
    if is_early:
        request.getfixturevalue("early")
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    assert_as_without_expectations(decoder, GUIDES[name], STRATEGIES[strategy])


@pytest.mark.parametrize(("name", "is_early"), [*product(["runs and others", "answer"], [False, True])])
def test_log_probabilities_are_those_without_expectations(tiny_model, make_cache, request, name, is_early):
    if is_early:
        request.getfixturevalue("early")
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    assert_as_without_expectations(decoder, GUIDES[name], STRATEGIES["flat"], logprobs=3)


@pytest.mark.parametrize(("name", "is_early"), [*product(GUIDES, [False, True])])
def test_doubtful_draws_are_those_without_expectations(tiny_model, make_cache, request, name, is_early):
    if is_early:
        request.getfixturevalue("early")
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    redrawn = []
    kind = doubtful_sampler(redrawn)
    assert_as_without_expectations(decoder, GUIDES[name], STRATEGIES["penalties"], kind=kind)
    assert redrawn


@pytest.mark.parametrize("is_early", [False, True])
def test_compiled_texts_are_those_without_expectations(tiny_model, make_cache, request, is_early):
    if is_early:
        request.getfixturevalue("early")
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY), compiles=True)
    assert_as_without_expectations(decoder, GUIDES["runs and others"], STRATEGIES["sampled"])


@pytest.mark.parametrize("is_early", [False, True])
def test_hybrids_give_the_texts_without_expectations(tmp_path, make_cache, request, is_early):
    if is_early:
        request.getfixturevalue("early")
    config = dict(hybrid_configs())["qwen3_5-untied"]
    model = Checkpoint(write_checkpoint(tmp_path, config)).weights.load("float32")
    decoder = decoder_for(model, make_cache(model, max_seq_len=CAPACITY))
    assert_as_without_expectations(decoder, GUIDES["runs and others"], STRATEGIES["flat"])


@needs_compiler
@cpu_only
@pytest.mark.parametrize("name", ["qwen3", "qwen3_5"])
def test_texts_of_kernels_are_those_without_expectations(tmp_path, monkeypatch, programs, make_cache, name):
    kernels = CppKernels(programs)
    monkeypatch.setattr(Code, "__call__", kernels.as_method)
    config = tiny_config("qwen3", **HEADS)
    if name == "qwen3_5":
        config = {**dict(hybrid_configs())["qwen3_5-untied"], **HEADS}
    model = Checkpoint(write_checkpoint(tmp_path, config)).weights.load("float32")
    by_kernel = fitted(model, ModelKernels(attention=BY_KERNEL))
    decoder = decoder_for(by_kernel, make_cache(by_kernel, max_seq_len=CAPACITY))
    assert decoder.hands_over_early
    assert_as_without_expectations(decoder, GUIDES["runs and others"], STRATEGIES["flat"], most=60)
    assert kernels.names


class Recorded:
    """The order in which draws are handed over and read."""

    def __init__(self, monkeypatch):
        self.events, indices, draws = [], {}, Decoder.draw
        hand_over, read = mx.async_eval, guided.read_draw

        def draw(*arguments):
            made = draws(*arguments)
            # Kept, so that no other array has its address.
            indices[id(made.outcome)] = made
            return made

        def async_eval(*arrays):
            found = [indices[id(each)] for each in arrays[0] if id(each) in indices] if arrays else []
            self.events.append(("handed over", found[0].index if found else None))
            hand_over(*arrays)

        def read_draw(made):
            self.events.append(("read", made.index))
            return read(made)

        monkeypatch.setattr(Decoder, "draw", draw)
        monkeypatch.setattr(mx, "async_eval", async_eval)
        monkeypatch.setattr(guided, "read_draw", read_draw)

    def between(self, first, last):
        """What happened from the reading of one draw to that of another."""
        return self.events[self.events.index(("read", first)) : self.events.index(("read", last))]


@pytest.mark.parametrize("kind", ["same", "all"])
def test_an_expected_draw_is_handed_over_with_its_step(tiny_model, make_cache, monkeypatch, kind):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    recorded = Recorded(monkeypatch)
    text_of(decoder, GUIDES[kind](), STRATEGIES["greedy"], most=40)
    assert recorded.between(30, 32) == [
        ("read", 30),
        ("handed over", 31),
        ("read", 31),
        ("handed over", 32),
    ]


@pytest.mark.parametrize("kind", ["same", "all"])
def test_a_sure_one_is_handed_over_before_the_token_before_is_read(
    tiny_model, make_cache, monkeypatch, early, kind
):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    recorded, guide = Recorded(monkeypatch), GUIDES[kind]()
    allowed = guide.allowed
    monkeypatch.setattr(
        guide, "allowed", lambda: recorded.events.append(("asked", len(guide.tokens))) or allowed()
    )
    text_of(decoder, guide, STRATEGIES["greedy"], most=40)
    for index in range(LEAST_SURE + 4, 37):
        assert recorded.between(index, index + 1) == [
            ("read", index),
            ("handed over", index + 2),
            ("asked", index + 1),
        ]
    # The first ones are not expected, and the next ones not sure.
    assert ("handed over", LEAST_SURE) in recorded.between(LEAST_SURE - 1, LEAST_SURE)


def test_a_step_is_not_built_where_forced_tokens_are_expected(tiny_model, make_cache, monkeypatch):
    decoder, built, guide = (
        decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY)),
        [],
        ScriptedGuide(lambda tokens: SETS[0], lambda tokens: [11, 12] * (len(tokens) % 3 == 1)),
    )
    step = decoder.step
    monkeypatch.setattr(decoder, "step", lambda token: built.append(len(guide.tokens)) or step(token))
    text_of(decoder, guide, STRATEGIES["greedy"], most=60)
    # Each token that is drawn is followed by two that are forced, which is expected from the third time on.
    assert built == [0, 3]


@pytest.mark.parametrize("is_early", [False, True])
def test_a_guide_that_fails_where_the_same_was_expected_ends_the_text(
    tiny_model, make_cache, request, is_early
):
    if is_early:
        request.getfixturevalue("early")
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    guide = ScriptedGuide(lambda tokens: [] if len(tokens) == 33 else SETS[0])
    with pytest.raises(LogitsError, match="token 34"):
        text_of(decoder, guide, STRATEGIES["greedy"])
    assert len(guide.tokens) == 33
    assert set(guide.tokens) <= set(SETS[0])


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
