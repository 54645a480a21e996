"""Guides of many kinds, which allow the same tokens again and again, and texts with them."""

from scripted_guide import ScriptedGuide
from speculated import ENDINGS, described, sampler_for

from metal_gen.engine.decoder import Decoder
from metal_gen.engine.guided import generate_guided_tokens

CAPACITY, MOST, PROMPT = 300, 150, [5, 6, 7]
SETS = [[3, 9, 17, 25, 40], [4, 9, 17, 33, 41, 60], [10, 20, 30]]


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


def hand_over_early(monkeypatch):
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
