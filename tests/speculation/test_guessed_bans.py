"""Texts with guesses where a token is banned that a guide asks for."""

import math
from dataclasses import replace

import pytest
from scripted_guide import ScriptedGuide
from speculated import STRATEGIES, Oracle, decoder_for, guessed_text, plain_text, sampler_for

pytestmark = pytest.mark.metal

PROMPT = [3, 17, 60, 8, 41, 22]


def one_of(tokens):
    """Every fourth time a single token."""
    return [5] if len(tokens) % 4 == 2 else [8, 9, 10 + len(tokens) % 9]


@pytest.mark.parametrize("rows_apart", [True, False], ids=["apart", "together"])
def test_a_token_that_alone_is_allowed_comes_whatever_bans_it(tiny_model, make_cache, rows_apart):
    """It may be a guess, and guesses go on after it."""
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=90))
    strategy = replace(STRATEGIES["sampled"], logit_bias=((5, -math.inf),))
    expected = plain_text(
        decoder, PROMPT, sampler_for(PROMPT, strategy), most=33, guide=ScriptedGuide(one_of)
    )
    assert [token for token, *_ in expected][2::4] == [5] * 8
    source = Oracle([token for token, *_ in expected], wrong=[3, 10])
    found, _ = guessed_text(
        decoder, PROMPT, sampler_for(PROMPT, strategy), source, most=33, guide=ScriptedGuide(one_of),
        rows_apart=rows_apart,
    )  # fmt: skip
    assert found == expected
