"""Penalties in texts with a guide: a token that is drawn again was never in the text."""

import pytest
from doubtful_sampler import doubtful_sampler
from repeating_guides import CAPACITY, PROMPT, hand_over_early, text_of
from scripted_guide import ScriptedGuide
from speculated import decoder_for, plain_text, sampler_for

from metal_gen.sampling.strategy import SamplingStrategy

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

STRONG = SamplingStrategy(temperature=0.0, repetition_penalty=2.0, frequency_penalty=1.5)


@pytest.fixture(params=[False, True], ids=["in turn", "early"])
def decoder(request, monkeypatch, tiny_model, make_cache):
    if request.param:
        hand_over_early(monkeypatch)
    return decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))


def test_an_uncertain_token_is_not_penalized_for_itself(decoder):
    free, redrawn = plain_text(decoder, PROMPT, sampler_for(PROMPT, STRONG), most=40), []
    sampler = sampler_for(PROMPT, STRONG, kind=doubtful_sampler(redrawn, wrong_by=0))
    assert plain_text(decoder, PROMPT, sampler, most=40, guide=ScriptedGuide()) == free
    assert redrawn


def widening(tokens):
    """The same tokens, so often that they are sure, and then one more."""
    return range(3, 60 + (len(tokens) == 23))


def test_a_token_of_an_expected_draw_is_not_penalized_in_the_one_that_takes_its_place(decoder):
    first, learned = (text_of(decoder, ScriptedGuide(widening), STRONG, most=24)[0] for _ in range(2))
    # The same tokens, but each time in another array, so that nothing is expected.
    others = ScriptedGuide(lambda tokens: [*[3] * len(tokens), *widening(tokens)])
    assert text_of(decoder, others, STRONG, most=24)[0] == first == learned
