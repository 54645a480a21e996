"""Texts with a guide: nothing comes that it does not allow, alone or among others."""

import math
from dataclasses import replace
from functools import partial
from itertools import product

import mlx.core as mx
import pytest
from doubtful_sampler import doubtful_sampler
from scripted_guide import ScriptedGuide

from metal_gen.engine import decoder as decoders
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.generator import generate_tokens
from metal_gen.engine.guided import generate_guided_tokens
from metal_gen.engine.slots.slot_decoder import SlotDecoder
from metal_gen.engine.stopping import FinishDetail
from metal_gen.errors import MetalGenError
from metal_gen.sampling.logits_error import LogitsError
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import SamplingStrategy

pytestmark = pytest.mark.metal

CAPACITY = 300
VOCABULARY = 64
ENDINGS = {1: FinishDetail.EOS}
STRATEGIES = [
    SamplingStrategy(temperature=0.0),
    SamplingStrategy(temperature=1.5),
    SamplingStrategy(temperature=0.9, repetition_penalty=1.3, frequency_penalty=0.2),
    SamplingStrategy(temperature=1.0, top_p=0.9, min_tokens=3),
]


def next_ones(tokens):
    """Five tokens, which the last one decides."""
    last = tokens[-1] if tokens else 7
    return [3 + (last * 5 + step * 11) % 60 for step in range(5)]


def run_of(tokens):
    """After every third token four others."""
    return [10 + len(tokens) % 50, 11, 12, 13] if len(tokens) % 7 == 3 else []


def many_after_two(tokens):
    """After two tokens more than two passes take."""
    return [3 + place % 60 for place in range(140)] * (len(tokens) == 2)


def one_by_one(tokens):
    """What `run_of` forces, as what alone is allowed."""
    begin = len(tokens) // 7 * 7 + 3
    forced = [10 + begin % 50, 11, 12, 13]
    place = len(tokens) - begin
    return [forced[place]] if 0 <= place < 4 else next_ones(tokens)


GUIDES = {
    "free": ScriptedGuide,
    "allowed": partial(ScriptedGuide, next_ones),
    "forced": partial(ScriptedGuide, next_ones, run_of),
    "forced from the start": partial(
        ScriptedGuide, next_ones, lambda tokens: range(20, 25) if not tokens else run_of(tokens)
    ),
    "more than a pass takes": partial(ScriptedGuide, next_ones, many_after_two),
    "ends": partial(ScriptedGuide, next_ones, ends=lambda tokens: len(tokens) >= 9),
    "ends forced": partial(ScriptedGuide, next_ones, run_of, ends=lambda tokens: len(tokens) == 12),
    "only forced": partial(ScriptedGuide, None, lambda tokens: [5, 6, 7, 8], lambda tokens: len(tokens) == 3),
}


@pytest.fixture(autouse=True)
def compile_passes_at_once(monkeypatch):
    monkeypatch.setattr(decoders, "PLAIN_PASSES", 0)


def make_sampler(prompt, strategy, kind=Sampler, *, number=0, logprobs=None):
    return kind(
        strategy,
        RandomKeys(3, number),
        prompt=prompt,
        capacity=CAPACITY,
        ending_ids=ENDINGS,
        logprobs=logprobs,
    )


def alone(model, cache, prompt, strategy, guide, *, most=30, kind=Sampler, compiles=False, number=0):
    cache.clear()
    decoder = Decoder(model, cache, compiles=compiles)
    sampler = make_sampler(prompt, strategy, kind, number=number)
    tokens = generate_guided_tokens(
        decoder, decoder.prefill(prompt), sampler, guide, endings=ENDINGS, max_tokens=most
    )
    return [(token.id, token.finish) for token in tokens]


@pytest.mark.parametrize(
    ("name", "strategy", "compiles", "fuses"),
    [
        *product(GUIDES, STRATEGIES[:3], [False, True], [False]),
        *(
            pytest.param(*each, True, True, marks=pytest.mark.release)
            for each in product(GUIDES, STRATEGIES[:3])
        ),
    ],
)
def test_each_token_is_one_that_the_guide_asks_for(
    tiny_model, make_cache, without_fusing, name, strategy, compiles, fuses
):
    if fuses:
        mx.enable_compile()
    guide = GUIDES[name]()
    cache = make_cache(tiny_model, max_seq_len=CAPACITY)
    made = alone(tiny_model, cache, [5, 6, 7], strategy, guide, compiles=compiles)
    tokens = [token for token, _ in made]
    assert guide.tokens == tokens
    assert made[-1][1] is not None
    assert all(finish is None for _, finish in made[:-1])
    # Asked before each draw, when all tokens before it were known.
    drawn = [place for place in range(len(tokens)) if place in guide.asked_at]
    assert guide.asked_at == drawn
    assert guide.prepared_at == drawn
    for place in drawn:
        allowed = guide.allows(tokens[:place])
        assert allowed is None or tokens[place] in allowed
        assert not guide.forces(tokens[:place])


@pytest.mark.parametrize("strategy", STRATEGIES, ids=range(4))
def test_what_is_forced_comes_out_as_if_drawn_from_nothing_else(tiny_model, make_cache, strategy):
    cache = make_cache(tiny_model, max_seq_len=CAPACITY)
    forced = alone(tiny_model, cache, [5, 6, 7], strategy, ScriptedGuide(next_ones, run_of))
    assert forced == alone(tiny_model, cache, [5, 6, 7], strategy, ScriptedGuide(one_by_one))


BANNED = [replace(strategy, logit_bias=((11, -math.inf), (13, -math.inf))) for strategy in STRATEGIES[:3]]


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("strategy", BANNED, ids=range(3))
def test_a_token_that_alone_is_allowed_comes_whatever_bans_it(tiny_model, make_cache, strategy, compiles):
    cache = make_cache(tiny_model, max_seq_len=CAPACITY)
    forced = alone(tiny_model, cache, [5, 6, 7], strategy, ScriptedGuide(next_ones, run_of))
    assert [token for token, _ in forced].count(13) > 2
    assert forced == alone(
        tiny_model, cache, [5, 6, 7], strategy, ScriptedGuide(one_by_one), compiles=compiles
    )
    slots = make_cache(tiny_model, max_seq_len=CAPACITY, batch_size=3)
    decoder = SlotDecoder(tiny_model, slots, compiles=compiles)
    texts = [(0, [5, 6, 7], strategy, partial(ScriptedGuide, one_by_one), 30)]
    texts += [(number, [5, 6, 7], strategy, partial(ScriptedGuide, next_ones), 30) for number in (1, 2)]
    assert together(decoder, texts)[0] == forced


def test_a_guide_that_allows_all_changes_nothing(tiny_model, make_cache):
    cache = make_cache(tiny_model, max_seq_len=CAPACITY)
    strategy = STRATEGIES[1]
    guided = alone(tiny_model, cache, [5, 6, 7], strategy, ScriptedGuide())
    cache.clear()
    decoder = Decoder(tiny_model, cache)
    sampler = make_sampler([5, 6, 7], strategy)
    free = generate_tokens(decoder, decoder.prefill([5, 6, 7]), sampler, endings=ENDINGS, max_tokens=30)
    assert guided == [(token.id, token.finish) for token in free]


@pytest.mark.parametrize("name", GUIDES)
def test_doubtful_draws_come_out_the_same(tiny_model, make_cache, name):
    cache, redrawn = make_cache(tiny_model, max_seq_len=CAPACITY), []
    expected = alone(tiny_model, cache, [5, 6, 7], STRATEGIES[2], GUIDES[name]())
    kind = doubtful_sampler(redrawn)
    assert alone(tiny_model, cache, [5, 6, 7], STRATEGIES[2], GUIDES[name](), kind=kind) == expected
    assert redrawn or name == "only forced"


def wanted():
    """Texts of every kind, with and without a guide, more than there are slots."""
    kinds = [None, *GUIDES.values()]
    for number in range(24):
        prompt = [3 + (number * 7 + place) % 60 for place in range(1 + number % 5 * 20)]
        kind = kinds[number % len(kinds)]
        yield number, prompt, STRATEGIES[number % 4], kind, (4, 30, 31, 170)[number % 4]


def together(decoder, texts, kind=Sampler):
    waiting, running, made = list(texts), {}, {}
    while waiting or running:
        while waiting and decoder.has_free_slot:
            number, prompt, strategy, guide, most = waiting.pop(0)
            begun = decoder.begin(
                prompt,
                make_sampler(prompt, strategy, kind, number=number),
                endings=ENDINGS,
                max_tokens=most,
                guide=guide and guide(),
            )
            running[begun] = made.setdefault(number, [])
        for text, token in decoder.step():
            running[text].append((token.id, token.finish))
            if token.finish:
                del running[text]
    return made


@pytest.mark.release
@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("is_doubtful", [False, True])
def test_texts_among_others_are_those_of_one_after_another(tiny_model, make_cache, compiles, is_doubtful):
    cache = make_cache(tiny_model, max_seq_len=CAPACITY)
    expected = {}
    for number, prompt, strategy, guide, most in wanted():
        guide = guide() if guide else ScriptedGuide()
        expected[number] = alone(tiny_model, cache, prompt, strategy, guide, most=most, number=number)
    slots = make_cache(tiny_model, max_seq_len=CAPACITY, batch_size=4)
    decoder = SlotDecoder(tiny_model, slots, chunk_size=48, stride=16, compiles=compiles)
    kind = doubtful_sampler([]) if is_doubtful else Sampler
    assert together(decoder, wanted(), kind) == expected


def test_a_guide_that_allows_nothing_ends_its_own_text_alone(tiny_model, make_cache):
    strategy = STRATEGIES[1]
    nothing_more = ScriptedGuide(lambda tokens: [] if len(tokens) == 2 else next_ones(tokens))
    slots = make_cache(tiny_model, max_seq_len=CAPACITY, batch_size=2)
    decoder = SlotDecoder(tiny_model, slots)
    stuck = decoder.begin([5], make_sampler([5], strategy), endings={}, max_tokens=9, guide=nothing_more)
    other = decoder.begin([6], make_sampler([6], strategy), endings={}, max_tokens=9)
    given = {stuck: [], other: []}
    while decoder.in_use:
        for text, token in decoder.step():
            given[text].append(token)
    assert len(given[other]) == 9
    assert isinstance(given[stuck][-1], LogitsError)
    assert [token.id for token in given[stuck][:-1]] == nothing_more.tokens


def test_the_error_of_a_guide_goes_before_that_of_the_logits(tiny_model, make_cache):
    guide = ScriptedGuide(lambda tokens: [])
    guide.error = MetalGenError("the guide is lost")
    cache = make_cache(tiny_model, max_seq_len=CAPACITY)
    with pytest.raises(MetalGenError, match="the guide is lost"):
        alone(tiny_model, cache, [5], STRATEGIES[0], guide)


@pytest.mark.parametrize("forces", [run_of, many_after_two], ids=["a few forced", "several passes of them"])
def test_the_cache_is_written_in_place(tiny_model, make_cache, forces):
    """A second handle on the buffers would have MLX copy them at every token."""
    cache = make_cache(tiny_model, max_seq_len=20_000)
    decoder = Decoder(tiny_model, cache)
    guide = ScriptedGuide(next_ones, forces)
    logits = decoder.prefill([5, 6, 7])
    mx.eval(logits, cache.buffers)
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    sampler = make_sampler([5, 6, 7], STRATEGIES[0])
    tokens = generate_guided_tokens(decoder, logits, sampler, guide, endings={}, max_tokens=160)
    assert len(list(tokens)) == 160
    assert mx.get_peak_memory() - before < cache.nbytes / 2
