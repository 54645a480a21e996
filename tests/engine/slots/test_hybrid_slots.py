"""Tests slots of models with linear attention: their states are separate, and shared where prompts part."""

import random

import mlx.core as mx
import pytest
from doubtful_sampler import doubtful_sampler, two_texts
from on_device import cpu_only
from test_slots import ENDINGS, STRATEGIES, alone, sampler, together
from tiny_checkpoint import hybrid_configs, write_checkpoint

from metal_gen.cache.config import MOST_BEGINNINGS
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.slots.slot_decoder import SlotDecoder
from metal_gen.models.rows.independence import with_independent_rows
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import SamplingStrategy

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

CONFIGS = dict(hybrid_configs())
STRIDE = 16
CAPACITY = 320  # As of the samplers of `test_slots`.
SYSTEM = [7 + place % 30 for place in range(3 * STRIDE)]


def requests(count):
    """Make prompts and lengths as in real work: some long, some with a common prefix."""
    chance = random.Random(0)
    made = []
    for number in range(count):
        own = [chance.randrange(3, 64) for _ in range(chance.choice([1, 3, 17, 40]))]
        prompt = SYSTEM + own if number % 3 else own
        made.append((number, prompt, STRATEGIES[number % len(STRATEGIES)], chance.choice([1, 4, 15])))
    return made


@pytest.fixture(scope="module", params=["qwen3_next-untied", "qwen3_5-untied"])
def model(request, tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp(request.param), CONFIGS[request.param])
    return Checkpoint(folder).weights.load("float32")


@pytest.fixture(scope="module")
def dense_mlp_model(tmp_path_factory):
    folder = write_checkpoint(tmp_path_factory.mktemp("hybrid"), CONFIGS["qwen3_5-tied"])
    return Checkpoint(folder).weights.load("float32")


@pytest.mark.parametrize("compiles", [False, True])
def test_texts_equal_those_generated_one_by_one(model, make_cache, compiles):
    wanted = requests(10)
    cache = make_cache(model, max_seq_len=CAPACITY)
    expected = {request[0]: alone(model, cache, request) for request in wanted}
    slots = make_cache(model, max_seq_len=CAPACITY, batch_size=4)
    decoder = SlotDecoder(model, slots, chunk_size=48, stride=STRIDE, compiles=compiles)
    assert together(decoder, wanted) == expected
    assert decoder.in_use == 0
    assert decoder.shared_tokens > 0


def logits_of(model, make_cache, wanted, batch_size, chunk_size=80):
    """Return all logits of every request, by number and token."""
    wanted = list(wanted)
    cache = make_cache(model, max_seq_len=CAPACITY, batch_size=batch_size)
    decoder = SlotDecoder(model, cache, chunk_size=chunk_size, stride=STRIDE)
    logits, running = {}, {}
    while wanted or running:
        while wanted and decoder.has_free_slot:
            number, prompt, strategy, most = wanted.pop(0)
            text = decoder.begin(prompt, sampler(number, prompt, strategy), endings=ENDINGS, max_tokens=most)
            running[text] = number
        for text, token in decoder.step():
            logits[running[text], token.draw.index] = token.draw.logits.tolist()
            if token.finish:
                del running[text]
    return logits


@cpu_only
def test_texts_are_the_same_to_the_last_bit_for_any_number_of_slots_and_order(model, make_cache):
    """Rows of mixed lengths, 1 to 16 at a time, join and leave."""
    model = with_independent_rows(model)
    wanted = requests(16 if model.config.experts is None else 6)
    expected = logits_of(model, make_cache, wanted, 1)
    for batch_size, chunk_size in ((3, 32), (8, 160), (16, 48)):
        random.Random(batch_size).shuffle(wanted)
        assert logits_of(model, make_cache, wanted, batch_size, chunk_size) == expected


@cpu_only
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_every_order_of_prompts_of_mixed_length(dense_mlp_model, make_cache, order):
    model = with_independent_rows(dense_mlp_model)
    greedy = STRATEGIES[0]
    short, long, longer = (
        [5],
        [3 + place % 50 for place in range(33)],
        [9 + place % 40 for place in range(70)],
    )
    wanted = [(0, short, greedy, 6), (1, long, greedy, 4), (2, longer, greedy, 2)]
    expected = {}
    for request in wanted:
        expected |= logits_of(model, make_cache, [request], 1)
    assert logits_of(model, make_cache, [wanted[place] for place in order], 3, 16) == expected


def begin(decoder, prompt, number=0, count=3):
    return decoder.begin(prompt, sampler(number, prompt, STRATEGIES[0]), endings={}, max_tokens=count)


def finish(decoder):
    while decoder.in_use:
        decoder.step()


def test_a_shared_beginning_is_computed_once_by_rows_that_begin_together(dense_mlp_model, make_cache):
    decoder = SlotDecoder(
        dense_mlp_model, make_cache(dense_mlp_model, CAPACITY, 4), chunk_size=64, stride=STRIDE
    )
    for number in range(4):
        begin(decoder, [*SYSTEM, 40 + number, 3])
    finish(decoder)
    assert decoder.shared_tokens == 3 * len(SYSTEM)
    # Later rows share it too, in any slot.
    for number in range(4):
        begin(decoder, [*SYSTEM, 50 + number, 3, 4])
    finish(decoder)
    assert decoder.shared_tokens == 7 * len(SYSTEM)


def test_rows_one_after_another_share_from_the_third_on(dense_mlp_model, make_cache):
    """The first prompt is computed before it is known where others will part from it."""
    decoder = SlotDecoder(dense_mlp_model, make_cache(dense_mlp_model, CAPACITY, 1), stride=STRIDE)
    shared = []
    for number in range(4):
        begin(decoder, [*SYSTEM, 40 + number, 3])
        finish(decoder)
        shared.append(decoder.shared_tokens)
    assert shared == [0, 0, len(SYSTEM), 2 * len(SYSTEM)]


def test_samples_of_one_prompt_compute_it_once(dense_mlp_model, make_cache):
    decoder = SlotDecoder(dense_mlp_model, make_cache(dense_mlp_model, CAPACITY, 3), stride=STRIDE)
    prompt = [*SYSTEM, 1, 2]
    for number in range(3):
        begin(decoder, prompt, number)
    finish(decoder)
    assert decoder.shared_tokens == 2 * len(SYSTEM)


def test_no_more_beginnings_are_kept_than_the_plan_counts(dense_mlp_model, make_cache):
    cache = make_cache(dense_mlp_model, CAPACITY, 2)
    decoder = SlotDecoder(dense_mlp_model, cache, stride=STRIDE)
    for beginning in range(2 * MOST_BEGINNINGS):
        system = [10 + beginning] * STRIDE
        for number in range(2):
            begin(decoder, [*system, 40 + number])
        finish(decoder)
    kept = len(decoder.slots.arrays) - len(cache.arrays)
    assert kept == 2 * len(cache.state_arrays)
    assert cache.config.num_states == 2 * 2 + 2


def test_a_text_is_not_changed_by_one_that_overflows_in_its_company(dense_mlp_model, make_cache):
    """After a state that is not finite, the next text in the slot begins from zero."""
    model = dense_mlp_model
    wanted = (0, [5, 6, 7], STRATEGIES[0], 6)
    expected = alone(model, make_cache(model, CAPACITY), wanted)
    for compiles in (False, True):
        cache = make_cache(model, CAPACITY, 2)
        decoder = SlotDecoder(model, cache, stride=STRIDE, compiles=compiles)
        bad = begin(decoder, [9, 9], 1, count=30)
        decoder.step()
        cache.state_arrays = [array + mx.inf for array in cache.state_arrays]
        decoder.end(bad)
        assert together(decoder, [wanted])[0] == expected
        assert together(decoder, [wanted])[0] == expected


@pytest.mark.parametrize("compiles", [False, True])
def test_an_uncertain_draw_is_drawn_anew_from_the_states_before_it(model, make_cache, compiles):
    strategy = SamplingStrategy(top_p=0.9, repetition_penalty=1.3, frequency_penalty=0.5)
    redrawn = []

    def texts(kind):
        decoder = SlotDecoder(model, make_cache(model, batch_size=2), compiles=compiles)
        return two_texts(decoder, strategy, kind)

    assert texts(doubtful_sampler(redrawn)) == texts(Sampler)
    assert redrawn


def test_a_prompt_that_waits_is_not_touched_by_the_compiled_step_of_others(dense_mlp_model, make_cache):
    model = dense_mlp_model
    wanted = [(0, [5], STRATEGIES[0], 20), (1, [9] * 90, STRATEGIES[0], 2), (2, [8, 3], STRATEGIES[0], 3)]

    def logits(requests, compiles):
        cache = make_cache(model, CAPACITY, 3)
        decoder = SlotDecoder(model, cache, chunk_size=STRIDE, stride=STRIDE, compiles=compiles)
        texts = {begin(decoder, prompt, number, count): number for number, prompt, _, count in requests}
        found = {}
        while decoder.in_use:
            for text, token in decoder.step():
                found[texts[text], token.draw.index] = token.draw.logits
        return found

    together = logits(wanted, compiles=True)
    for request in wanted:
        for place, expected in logits([request], compiles=False).items():
            assert mx.abs(together[place] - expected).max() < 1e-5 * mx.abs(expected).max()
