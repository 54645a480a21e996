"""The bits of allowed tokens, found in other threads: they are those that this thread finds."""

import json
import random
import threading

import pytest
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.constraints.constraint import Constraint
from metal_gen.constraints.masks import MOST_KEPT, Masks
from metal_gen.constraints.matcher import GrammarMatcher

NAMES = {"type": "array", "items": {"type": "string", "minLength": 2, "maxLength": 5}, "minItems": 9}
CONSTRAINT = Constraint.schema(NAMES)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return Checkpoint(write_text_checkpoint(tmp_path_factory.mktemp("checkpoint"))).token_table


@pytest.fixture
def in_threads(table, monkeypatch):
    monkeypatch.setattr(table.masks, "in_threads", True)


def choices(bits):
    return [
        32 * place + bit
        for place, word in enumerate(bits.tolist()[0])
        for bit in range(32)
        if word >> bit & 1
    ]


def test_bits_are_the_same_after_any_steps(table, in_threads):
    random_steps, asked, plain = random.Random(1), *(GrammarMatcher(table, CONSTRAINT) for _ in range(2))
    length = 0
    for _ in range(200):
        asked.prepare()
        if length and random_steps.random() < 0.3:
            count = random_steps.randint(1, length)
            for matcher in (asked, plain):
                matcher.take_back(count)
            length -= count
        else:
            token = random_steps.choice(choices(plain.allowed()))
            for matcher in (asked, plain):
                matcher.accept(token)
            length += 1
        assert asked.forced() == plain.forced()
        assert asked.is_complete == plain.is_complete
        asked.prepare()
        assert asked.is_over == plain.is_over
        assert asked.allowed().tolist() == plain.allowed().tolist()


def test_bits_are_those_that_the_library_returns(table):
    random_steps, matcher, found = random.Random(2), GrammarMatcher(table, CONSTRAINT), []
    for _ in range(40):
        bits = matcher.find_bits()
        # The library may return a word more.
        assert matcher._own.compute_bitmask()[: len(bits)] == bits
        found.append((bits, matcher.allowed().tolist()))
        matcher.accept(random_steps.choice(choices(matcher.allowed())))
    # Those of a place are not overwritten by the next one's.
    assert all(table.masks.array(bits).tolist() == words for bits, words in found)
    assert len({bits for bits, _ in found}) > 3


def test_another_thread_finds_them_if_asked(table, in_threads, monkeypatch):
    found_in, matcher = [], GrammarMatcher(table, CONSTRAINT)
    find = matcher.find_bits
    monkeypatch.setattr(matcher, "find_bits", lambda: found_in.append(threading.current_thread()) or find())
    matcher.prepare()
    matcher.allowed()
    matcher.allowed()
    assert len(found_in) == 2
    assert found_in[0] is not threading.main_thread()
    assert found_in[1] is threading.main_thread()


def test_nothing_else_uses_a_matcher_that_is_asked(table, in_threads, monkeypatch):
    may_end, used, matcher = threading.Event(), [], GrammarMatcher(table, CONSTRAINT)
    find = matcher.find_bits
    monkeypatch.setattr(matcher, "find_bits", lambda: (may_end.wait(), used.append("found"), find())[2])
    matcher.prepare()
    threading.Timer(0.05, may_end.set).start()
    matcher.accept(ord("["))
    used.append("accepted")
    assert used == ["found", "accepted"]


def test_what_goes_wrong_in_the_thread_is_raised_by_the_caller(table, in_threads, monkeypatch):
    matcher = GrammarMatcher(table, CONSTRAINT)
    monkeypatch.setattr(matcher, "find_bits", lambda: 1 // 0)
    matcher.prepare()
    with pytest.raises(ZeroDivisionError):
        matcher.allowed()


def test_an_error_of_the_text_is_said(table, in_threads):
    matcher = GrammarMatcher(table, CONSTRAINT)
    matcher.accept(ord("{"))
    matcher.prepare()
    assert not choices(matcher.allowed())
    assert matcher.error.message.startswith("the text cannot continue within the schema after 1 token")


def test_there_are_no_threads_unless_they_are_asked():
    masks = Masks(64)
    masks.in_threads = False
    assert masks.submit(lambda: b"") is None
    masks.array(bytes(8))
    assert "_threads" not in vars(masks)


def test_bits_that_come_again_are_the_same_array():
    masks = Masks(64)
    first = masks.array(bytes(range(8)))
    for last in range(MOST_KEPT - 1):
        masks.array(bytes(7) + bytes([last]))
    assert masks.array(bytes(range(8))) is first
    assert first.tolist() == [[0x03020100, 0x07060504]]
    for last in range(MOST_KEPT):
        masks.array(bytes(7) + bytes([last]))
    assert masks.array(bytes(range(8))) is not first


def test_texts_are_the_same(monkeypatch):
    story = metal_gen.load(max_seq_len=256)
    masks, texts = story.checkpoint.token_table.masks, {}
    for is_on in (False, True):
        monkeypatch.setattr(masks, "in_threads", is_on)
        settings = {"schema": NAMES, "seed": 3, "thinking": False, "temperature": 1.5, "max_tokens": 90}
        made = metal_gen.generate_samples(story, "Ann", 3, **settings)
        alone = metal_gen.generate(story, "Ann", **settings)
        texts[is_on] = [text.token_ids for text in (*made, alone)]
        assert all(json.loads(text.text) for text in made if text.complete)
    assert texts[False] == texts[True]
    assert "_threads" in vars(masks)
