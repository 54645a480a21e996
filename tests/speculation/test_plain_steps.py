"""Plain steps of a text whose source finds nothing: the plain text, and what is recorded of it."""

import pytest
from doubtful_sampler import doubtful_sampler
from speculated import STRATEGIES, EveryDepth, Oracle, decoder_for, guessed_text, plain_text, sampler_for

from metal_gen.engine.stopping import FinishDetail
from metal_gen.sampling.logits_error import LogitsError
from metal_gen.sampling.sampler import Sampler
from metal_gen.speculation.generator import generate_with_guesses
from metal_gen.speculation.speculation import Speculation

pytestmark = pytest.mark.metal

PROMPT = [3, 17, 60, 8, 41, 22]
COMPILES = pytest.mark.parametrize("compiles", [False, True], ids=["plain", "compiled"])


class Nothing(Oracle):
    """Never has a guess."""

    def __init__(self):
        super().__init__([])

    def expects(self, wanted):
        return False


class NotedDepths(EveryDepth):
    """Notes the passes."""

    def __init__(self):
        super().__init__()
        self.noted = []

    def note(self, kind, count, accepted, seconds, filled=0):
        self.noted.append((kind, count, accepted, seconds))


@pytest.fixture
def decoders(tiny_model, make_cache):
    """Two decoders of the same model, uncompiled and compiled."""
    return {
        compiles: decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=90), compiles=compiles)
        for compiles in (False, True)
    }


@COMPILES
@pytest.mark.parametrize("name", STRATEGIES)
def test_steps_without_guesses_give_the_plain_text(decoders, name, compiles):
    decoder = decoders[compiles]
    for seed, most in enumerate((1, 2, 40, None)):

        def sampler(seed=seed):
            return sampler_for(PROMPT, STRATEGIES[name], seed=seed)

        expected, source = plain_text(decoder, PROMPT, sampler(), most=most), Nothing()
        found, speculation = guessed_text(decoder, PROMPT, sampler(), source, most=most)
        assert found == expected
        assert source.given == [token for token, *_ in expected]
        assert speculation.counts.by_depth == {0: len(expected)}
        assert decoder.cache.position == len(PROMPT) + len(expected) - 1


@COMPILES
def test_draws_that_must_be_repeated_without_guesses_give_the_plain_text(decoders, compiles):
    decoder, redrawn, strategy = decoders[compiles], [], STRATEGIES["penalties"]
    expected = plain_text(decoder, PROMPT, sampler_for(PROMPT, strategy), most=30)
    sampler = sampler_for(PROMPT, strategy, kind=doubtful_sampler(redrawn))
    found, _ = guessed_text(decoder, PROMPT, sampler, Nothing(), most=30)
    assert found == expected
    assert redrawn


def test_a_failure_without_guesses_names_its_step(decoders, monkeypatch):
    class Failing(Sampler):
        def draw(self, logits, index, allowed=None):
            return super().draw(logits * (float("nan") if index == 9 else 1), index, allowed)

    expected, found = plain_text(decoders[False], PROMPT, sampler_for(PROMPT, STRATEGIES["greedy"])), []
    sampler = sampler_for(PROMPT, STRATEGIES["greedy"], kind=Failing)
    monkeypatch.setattr("speculated.described", lambda tokens: [found.append(token.id) for token in tokens])
    with pytest.raises(LogitsError, match="no token can be chosen at new token 10"):
        guessed_text(decoders[False], PROMPT, sampler, Nothing())
    assert found == [token for token, *_ in expected[:9]]


def test_a_text_ends_at_a_token_while_the_step_after_it_is_computed(decoders):
    decoder = decoders[False]
    expected = plain_text(decoder, PROMPT, sampler_for(PROMPT, STRATEGIES["greedy"]), most=20)
    ids = [token for token, *_ in expected]
    place = next(place for place in range(3, 20) if ids[place] not in ids[:place])
    speculation = Speculation(Nothing(), EveryDepth())
    decoder.cache.clear()
    sampler, endings = sampler_for(PROMPT, STRATEGIES["greedy"]), {ids[place]: FinishDetail.STOP_TOKEN}
    tokens = list(
        generate_with_guesses(decoder, decoder.prefill(PROMPT), sampler, speculation, endings=endings)
    )
    assert [token.id for token in tokens] == ids[: place + 1]
    assert tokens[-1].finish == FinishDetail.STOP_TOKEN
    assert decoder.cache.position == len(PROMPT) + place


def test_the_time_of_a_step_that_compiles_does_not_count(decoders):
    for decoder, first in ((decoders[True], 2), (decoders[True], 1), (decoders[False], 1)):
        depths = NotedDepths()
        decoder.cache.clear()
        tokens = generate_with_guesses(
            decoder, decoder.prefill(PROMPT), sampler_for(PROMPT, STRATEGIES["greedy"]),
            Speculation(Nothing(), depths), endings={}, max_tokens=20,
        )  # fmt: skip
        assert len(list(tokens)) == len(depths.noted) == 20
        assert {noted[:3] for noted in depths.noted} == {("", 0, 0)}
        # While the draw after the prompt is read, the function is compiled that the next step runs.
        assert [noted[3] is None for noted in depths.noted] == [True] * first + [False] * (20 - first)
