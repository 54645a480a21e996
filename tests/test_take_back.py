"""The contract of `take_back`, for everything that follows a text: it is as if nothing had been added."""

import random
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from tiny_checkpoint import hybrid_configs, write_checkpoint
from tiny_text_checkpoint import END_THINK, THINK, write_text_checkpoint

from metal_gen.cache.config import KVCacheConfig
from metal_gen.cache.hybrid import HybridCache
from metal_gen.cache.kv_cache import KVCache
from metal_gen.cache.slots import SlotCache
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.matcher import GrammarMatcher
from metal_gen.engine.decoder import Decoder
from metal_gen.generation.guides.guide import TextGuide
from metal_gen.generation.guides.loops import LoopDetector
from metal_gen.generation.guides.thinking import Thinking
from metal_gen.sampling.penalties import TokenHistory
from metal_gen.sampling.random_keys import RandomKeys
from metal_gen.sampling.sampler import Sampler
from metal_gen.sampling.strategy import SamplingStrategy
from metal_gen.speculation.lookup import Lookup
from metal_gen.take_back import MOST_TAKEN_BACK, Recent
from metal_gen.text.detokenizer import Detokenizer
from metal_gen.text.encoded_prompt import Prompt
from metal_gen.text.stop_strings import StopMatcher
from metal_gen.text.thinking import ThinkingSplitter

pytestmark = pytest.mark.metal

CHAT = Prompt([1, 2, 3], is_chat=True)
PENALISING = SamplingStrategy(temperature=1.0, repetition_penalty=1.3, frequency_penalty=0.3)
# The library reaches one of its limits after three letters.
ENDLESS = r"""
start: /[ab]{3}/ (x x)
x: /[^\x00-\u{10FFFF}]/ | "c" x
"""
PIECES = ["a", "ab", "</thi", "nk>", "<think>", "\n", " ", "stop", "st", "op"]


class Followed:
    """Something that follows a text.

    Attributes:
        added: Makes an addition, and returns what can be seen of it.
        things: Additions to choose from.
        most: How many can be taken back.
    """

    most = 12

    def __init__(self, thing, added, things):
        self.thing, self.added, self.things = thing, added, things

    def take_back(self, count):
        self.thing.take_back(count)


def followed_cache(model, config, *, most=12):
    cache = (HybridCache if model.config.linear is not None else KVCache)(config)
    decoder = Decoder(model, cache)
    decoder.prefill([5, 6, 7])
    cache.mark()
    followed = Followed(cache, lambda token: np.array(decoder.step(mx.array([token]))), range(3, 64))
    followed.most = most
    return followed


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    config = dict(hybrid_configs())["qwen3_5-untied"]
    return Checkpoint(write_checkpoint(tmp_path_factory.mktemp("hybrid"), config)).weights.load("float32")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return Checkpoint(write_text_checkpoint(tmp_path_factory.mktemp("texts")))


@pytest.fixture
def makers(tiny_model, hybrid, texts, make_cache):
    tokenizer = texts.tokenizer

    def slot():
        cache = SlotCache(KVCache(KVCacheConfig(num_layers=1, num_kv_heads=1, head_dim=8, batch_size=2)), 4)

        class Slot:
            def take_back(self, count):
                cache.take_back(1, count)

        return Followed(Slot(), lambda token: cache.claim(1, 1), range(4))

    def lookup():
        source = Lookup(100)
        source.begin([1, 2, 3] * 4, 0)

        def added(token):
            source.accepted([token], None)
            guesses = source.guess(lambda kind: 5, None)
            return guesses and (guesses.kind, guesses.tokens)

        return Followed(source, added, [1, 2, 3])

    def history():
        history = TokenHistory([1, 2], 100)
        return Followed(
            history,
            lambda token: (history.append(mx.array([token])), history.recent(5).tolist())[1],
            range(9),
        )

    def sampler():
        sampler = Sampler(PENALISING, RandomKeys(1), prompt=[1, 2], capacity=100)
        logits = mx.random.normal((1, 64), key=mx.random.key(4))

        def added(token):
            sampler.note([token])
            return sampler.draw(logits, 7).token.item()

        return Followed(sampler, added, range(64))

    def thinking(**changes):
        return Thinking(tokenizer, CHAT, **{"budget": 9, "breaks_loops": True, **changes})

    def seen_thinking():
        thinking_ = thinking()

        def added(token):
            thinking_.accept(token)
            return thinking_.phase, thinking_.closing(), thinking_.cut

        return Followed(thinking_, added, [THINK, END_THINK, *b"a \n"])

    def constraint(matcher):
        def added(token):
            allowed = matcher.allowed().tolist()[0]
            if allowed[token // 32] >> token % 32 & 1:
                matcher.accept(token)
            else:
                matcher.accept(next(t for t in range(256) if allowed[t // 32] >> t % 32 & 1))
            return matcher.allowed().tolist()

        return Followed(matcher, added, list(b"ab,"))

    def limit():
        # A few tokens bring the library to one of its limits, others are not allowed.
        matcher = GrammarMatcher(texts.token_table, Constraint.lark(ENDLESS))

        def added(token):
            forced = bytes(matcher.forced()[:2])
            allowed = matcher.allowed().tolist()
            matcher.accept(token)
            return forced, allowed, matcher.error and matcher.error.message

        return Followed(matcher, added, list(b"abababc"))

    def guide():
        matcher = GrammarMatcher(texts.token_table, Constraint.regex("([ab],)+"))
        guide = TextGuide(thinking(), matcher, vocab_size=tokenizer.vocab_size, blank_lines=[10, 10])
        things = [THINK, END_THINK, *b"ab,"]

        def added(token):
            forced = list(guide.forced())
            allowed = guide.allowed()
            allowed = None if allowed is None else allowed.tokens.tolist()[0]
            if forced:
                token = forced[0]
            elif allowed is not None and not allowed[token // 32] >> token % 32 & 1:
                token = next(t for t in things if allowed[t // 32] >> t % 32 & 1)
            finish = guide.accept(token)
            return token, finish, guide.is_complete, guide.thinking.phase

        return Followed(guide, added, things)

    detokenizer = lambda: Detokenizer(tokenizer)  # noqa: E731
    return {
        "keys and values": lambda: followed_cache(tiny_model, make_cache(tiny_model, max_seq_len=200).config),
        "states": lambda: followed_cache(
            hybrid, replace(make_cache(hybrid, max_seq_len=200).config, recent_passes=4), most=4
        ),
        "slot": slot,
        "lookup": lookup,
        "history": history,
        "sampler": sampler,
        "stop strings": lambda: (lambda m: Followed(m, m.feed, PIECES))(StopMatcher(["stop", "ab\n", "aab"])),
        "thinking splitter": lambda: (lambda s: Followed(s, s.feed, PIECES))(ThinkingSplitter(CHAT)),
        "detokenizer": lambda: (lambda d: Followed(d, d.add, list("é😀a".encode())))(detokenizer()),
        "loops": lambda: (lambda d: Followed(d, d.add, [1, 2]))(LoopDetector()),
        "thinking": seen_thinking,
        "grammar": lambda: constraint(GrammarMatcher(texts.token_table, Constraint.regex("([ab],)+"))),
        "grammar at a limit": limit,
        "guide": guide,
    }


NAMES = [
    "keys and values",
    "states",
    "slot",
    "lookup",
    "history",
    "sampler",
    "stop strings",
    "thinking splitter",
    "detokenizer",
    "loops",
    "thinking",
    "grammar",
    "grammar at a limit",
    "guide",
]


def test_every_kind_is_run(makers):
    assert list(makers) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_taken_back_was_never_added(makers, name):
    chance = random.Random(name)
    for _ in range(6):
        followed, fresh = makers[name](), makers[name]()
        text, reachable = [], 0
        for _ in range(30):
            if chance.random() < 0.7 or not reachable:
                text.append(chance.choice(followed.things))
                followed.added(text[-1])
                reachable = min(reachable + 1, followed.most)
            else:
                count = chance.randint(0, reachable)
                followed.take_back(count)
                del text[len(text) - count :]
                reachable -= count
        for thing in text:
            fresh.added(thing)
        for _ in range(5):
            thing = chance.choice(followed.things)
            np.testing.assert_equal(followed.added(thing), fresh.added(thing))


def test_states_within_a_pass_are_computed_again(hybrid, make_cache):
    config = make_cache(hybrid, max_seq_len=60).config
    text = [5, 6, 7, 8, 9, 10, 11]
    for count in range(len(text) + 1):
        cache = HybridCache(replace(config, most_replayed=len(text)))
        decoder = Decoder(hybrid, cache)
        decoder.prefill([3, 4])
        decoder.extend(text)
        cache.take_back(count)
        if count < len(text) - 1:
            cache.take_back(1)  # Once more within the same pass.
            decoder.extend(text[len(text) - count - 1 : len(text) - count])
        whole = Decoder(hybrid, HybridCache(config))
        whole.prefill([3, 4, *text[: len(text) - count]])
        np.testing.assert_allclose(decoder.step(mx.array([9])), whole.step(mx.array([9])), atol=1e-4)


def test_too_much_is_refused_and_changes_nothing(tiny_model, make_cache):
    recent = Recent()
    for state in range(MOST_TAKEN_BACK + 5):
        recent.keep(state)
    for count in (MOST_TAKEN_BACK + 1, -1):
        with pytest.raises(ValueError, match="cannot take back"):
            recent.take_back(count, 99)
    assert recent.take_back(MOST_TAKEN_BACK, 99) == 5
    history = TokenHistory([1, 2], 10)
    history.append(mx.array([3]))
    with pytest.raises(ValueError, match="cannot take back 2 of 1 tokens"):
        history.take_back(2)
    assert history.recent(None).tolist() == [1, 2, 3]
