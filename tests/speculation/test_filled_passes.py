"""Compiled passes with fewer guesses than were chosen: they are filled up, and nothing else is compiled."""

from dataclasses import replace

import pytest
from speculated import STRATEGIES, EveryDepth, Oracle, decoder_for, plain_text, sampler_for

from metal_gen.speculation.generator import generate_with_guesses
from metal_gen.speculation.speculation import Speculation

pytestmark = pytest.mark.metal

PROMPT = [3, 17, 60, 8, 41, 22]


class FilledDepths(EveryDepth):
    """Fills all passes up to the depth."""

    def __init__(self, most):
        super().__init__(most)
        self.noted = []

    def filled(self, kind, count):
        return self.most

    def note(self, kind, count, accepted, seconds, filled=0):
        self.noted.append((count, filled))


@pytest.mark.parametrize("name", ["greedy", "sampled"])
def test_the_last_passes_of_a_text_compile_nothing(tiny_model, make_cache, name):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=90), compiles=True)
    strategy = replace(STRATEGIES[name], min_tokens=24)
    expected = plain_text(decoder, PROMPT, sampler_for(PROMPT, strategy), most=24)
    source = Oracle([token for token, *_ in expected], wrong=[3, 12])
    depths = FilledDepths(8)
    decoder.cache.clear()
    tokens = generate_with_guesses(
        decoder, decoder.prefill(PROMPT), sampler_for(PROMPT, strategy),
        Speculation(source, depths, rows_apart=False), endings={}, max_tokens=24,
    )  # fmt: skip
    assert [token.id for token in tokens] == [token for token, *_ in expected]
    assert len({count for count, _ in depths.noted}) > 2
    assert {filled for count, filled in depths.noted if count} == {8}
    assert decoder.compiled_rows.count == 1
    assert decoder.cache.position == len(PROMPT) + len(expected) - 1


@pytest.mark.parametrize(("compiles", "rows_apart"), [(True, True), (False, False)])
def test_passes_that_are_not_compiled_are_not_filled_up(tiny_model, make_cache, compiles, rows_apart):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=90), compiles=compiles)
    expected = plain_text(decoder, PROMPT, sampler_for(PROMPT, STRATEGIES["greedy"]), most=24)
    source, depths = Oracle([token for token, *_ in expected], wrong=[3, 12]), FilledDepths(8)
    decoder.cache.clear()
    tokens = generate_with_guesses(
        decoder, decoder.prefill(PROMPT), sampler_for(PROMPT, STRATEGIES["greedy"]),
        Speculation(source, depths, rows_apart=rows_apart), endings={}, max_tokens=24,
    )  # fmt: skip
    assert [token.id for token in tokens] == [token for token, *_ in expected]
    assert max(count for count, _ in depths.noted) > 2
    assert {filled for _, filled in depths.noted} == {0}
