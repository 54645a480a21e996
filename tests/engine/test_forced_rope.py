"""Forced tokens with dynamic RoPE scaling, which rotates each token of a long text by periods of its own."""

import pytest
from scripted_guide import ScriptedGuide
from speculated import ENDINGS, STRATEGIES, decoder_for, plain_text, sampler_for
from tiny_checkpoint import tiny_config, write_checkpoint

from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.engine.slots.slot_decoder import SlotDecoder

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

CAPACITY, MOST, TRAINED = 190, 110, 60
RUN, NO_ENDINGS = [11, 12, 13, 14, 15], list(range(3, 64))


def run_of(tokens):
    return RUN if len(tokens) % 9 == 0 else []


def one_by_one(tokens):
    """What `run_of` forces, as what alone is allowed."""
    place = len(tokens) % 9
    return [RUN[place]] if place < len(RUN) else NO_ENDINGS


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = tiny_config(
        "qwen2",
        rope_scaling={"rope_type": "dynamic", "factor": 2.0},
        max_position_embeddings=TRAINED,
    )
    return Checkpoint(write_checkpoint(tmp_path_factory.mktemp("dynamic"), config)).weights.load("float32")


@pytest.fixture(params=[30, 58, TRAINED, 75])
def prompt(request):
    return [3 + place * 7 % 61 for place in range(request.param)]


@pytest.fixture
def drawn(model, make_cache, prompt):
    """Texts of which each token is drawn, by the name of their strategy."""
    decoder = decoder_for(model, make_cache(model, max_seq_len=CAPACITY))
    return {
        name: [token for token, *_ in plain_text(
            decoder, prompt, sampler_for(prompt, STRATEGIES[name]), most=MOST, guide=ScriptedGuide(one_by_one)
        )]
        for name in ("greedy", "penalties")
    }  # fmt: skip


@pytest.mark.parametrize("compiles", [False, True])
def test_a_text_alone_is_as_if_each_token_were_drawn(model, make_cache, prompt, drawn, compiles):
    decoder = decoder_for(model, make_cache(model, max_seq_len=CAPACITY), compiles=compiles)
    for name, expected in drawn.items():
        guide = ScriptedGuide(lambda tokens: NO_ENDINGS, run_of)
        found = plain_text(decoder, prompt, sampler_for(prompt, STRATEGIES[name]), most=MOST, guide=guide)
        assert [token for token, *_ in found] == expected
        assert len(guide.asked_at) < len(expected)


@pytest.mark.parametrize("compiles", [False, True])
def test_texts_in_slots_are_as_if_each_token_were_drawn(model, make_cache, prompt, drawn, compiles):
    cache = make_cache(model, max_seq_len=CAPACITY, batch_size=len(drawn))
    decoder = SlotDecoder(model, cache, chunk_size=48, stride=16, compiles=compiles)
    found = {}
    for name in drawn:
        sampler = sampler_for(prompt, STRATEGIES[name])
        guide = ScriptedGuide(lambda tokens: NO_ENDINGS, run_of)
        found[decoder.begin(prompt, sampler, endings={}, max_tokens=MOST, guide=guide)] = []
    while decoder.in_use:
        for text, token in decoder.step():
            found[text].append(token.id)
    assert list(found.values()) == list(drawn.values())
    assert {len(tokens) for tokens in found.values()} == {MOST}


@pytest.mark.parametrize("compiles", [False, True])
@pytest.mark.parametrize("chunk_size", [16, 32, 64])
def test_a_prompt_with_other_periods_waits_while_forced_tokens_fill_passes(
    model, make_cache, chunk_size, compiles
):
    cache = make_cache(model, max_seq_len=CAPACITY, batch_size=2)
    decoder = SlotDecoder(model, cache, chunk_size=chunk_size, stride=16, compiles=compiles)
    short, long = [5, 6, 7], [3 + place * 7 % 61 for place in range(75)]
    guide = ScriptedGuide(lambda tokens: NO_ENDINGS, lambda tokens: [*range(3, 43)] * (len(tokens) == 2))
    first = decoder.begin(
        short, sampler_for(short, STRATEGIES["greedy"]), endings={}, max_tokens=50, guide=guide
    )
    found = {first: []}
    while decoder.in_use:
        for text, token in decoder.step():
            found[text].append(token.id)
        if len(found) == 1 and len(found[first]) >= 42:
            # The forced tokens are not in the cache yet.
            second = decoder.begin(
                long, sampler_for(long, STRATEGIES["greedy"]), endings=ENDINGS, max_tokens=9
            )
            found[second] = []
    alone = decoder_for(model, make_cache(model, max_seq_len=CAPACITY))
    expected = plain_text(alone, long, sampler_for(long, STRATEGIES["greedy"]), most=9)
    assert found[second] == [token for token, *_ in expected]
    assert len(found[first]) == 50
