"""When the steps and draws of texts with a guide are handed over: early enough to keep the device busy."""

from itertools import product

import mlx.core as mx
import pytest
from repeating_guides import CAPACITY, GUIDES, SETS, hand_over_early, places, text_of
from scripted_guide import ScriptedGuide
from speculated import STRATEGIES, decoder_for

from metal_gen.engine import guided
from metal_gen.engine.decoder import Decoder
from metal_gen.engine.expectations import LEAST_SURE

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]


@pytest.fixture
def early(monkeypatch):
    hand_over_early(monkeypatch)


class Recorded:
    """The order in which draws are handed over and read."""

    def __init__(self, monkeypatch):
        self.events, indices, draws, drawn_next = [], {}, Decoder.draw, Decoder.draw_next
        hand_over, read = mx.async_eval, guided.read_draw

        def draw(*arguments):
            made = draws(*arguments)
            # Kept, so that no other array has its address.
            indices[id(made.outcomes)] = made
            return made

        def async_eval(*arrays):
            found = [indices[id(each)] for each in arrays[0] if id(each) in indices] if arrays else []
            self.events.append(("handed over", found[0].index if found else None))
            hand_over(*arrays)

        def read_draw(made):
            self.events.append(("read", made.index))
            return read(made)

        def draw_next(*arguments):
            made = drawn_next(*arguments)
            indices[id(made.outcomes)] = made
            return made

        monkeypatch.setattr(Decoder, "draw", draw)
        monkeypatch.setattr(Decoder, "draw_next", draw_next)
        monkeypatch.setattr(mx, "async_eval", async_eval)
        monkeypatch.setattr(guided, "read_draw", read_draw)

    def between(self, first, last):
        """What happened from the reading of one draw to that of another."""
        return self.events[self.events.index(("read", first)) : self.events.index(("read", last))]


@pytest.mark.parametrize("kind", ["same", "all"])
def test_an_expected_draw_is_handed_over_with_its_step(tiny_model, make_cache, monkeypatch, kind):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY))
    recorded = Recorded(monkeypatch)
    text_of(decoder, GUIDES[kind](), STRATEGIES["greedy"], most=40)
    assert recorded.between(30, 32) == [
        ("read", 30),
        ("handed over", 31),
        ("read", 31),
        ("handed over", 32),
    ]


@pytest.mark.parametrize(("kind", "compiles"), [*product(["same", "all"], [False, True])])
def test_a_sure_one_is_handed_over_before_the_token_before_is_read(
    tiny_model, make_cache, monkeypatch, early, kind, compiles
):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY), compiles=compiles)
    recorded, guide = Recorded(monkeypatch), GUIDES[kind]()
    allowed, prepare = guide.allowed, guide.prepare
    monkeypatch.setattr(
        guide, "allowed", lambda: recorded.events.append(("asked", len(guide.tokens))) or allowed()
    )
    monkeypatch.setattr(
        guide, "prepare", lambda: recorded.events.append(("prepared", len(guide.tokens))) or prepare()
    )
    text_of(decoder, guide, STRATEGIES["greedy"], most=40)
    for index in range(LEAST_SURE + 4, 37):
        assert recorded.between(index, index + 1) == [
            ("read", index),
            ("prepared", index + 1),
            ("handed over", index + 2),
            ("asked", index + 1),
        ]
    # The first ones are not expected, and the next ones not sure.
    assert ("handed over", LEAST_SURE) in recorded.between(LEAST_SURE - 1, LEAST_SURE)


@pytest.mark.parametrize("kind", ["same", "all"])
def test_a_sure_step_and_its_draw_are_one_function(tiny_model, make_cache, monkeypatch, early, kind):
    decoder, calls = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY), compiles=True), []
    for name in ("step_in_parts", "draw", "draw_next"):
        call = getattr(decoder, name)
        monkeypatch.setattr(
            decoder, name, lambda *arguments, call=call, name=name: calls.append(name) or call(*arguments)
        )
    text_of(decoder, GUIDES[kind](), STRATEGIES["greedy"], most=40)
    assert calls[-20:] == ["draw_next"] * 20
    # The step alone and the draw, as long as it is not sure, and both together.
    assert decoder.compiled_count == 3


def test_the_first_part_of_a_step_is_handed_over_before_the_token_before_is_read(
    tiny_model, make_cache, monkeypatch, early
):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY), compiles=True)
    recorded, guide = Recorded(monkeypatch), ScriptedGuide(lambda tokens: range(3, 40 + len(tokens) % 20))
    text_of(decoder, guide, STRATEGIES["greedy"], most=19)
    part = rest = ("handed over", None)
    for index in range(2, 17):
        assert recorded.between(index, index + 1) == [
            ("read", index),
            rest,
            ("handed over", index + 1),
            part,
        ]


def test_no_part_is_handed_over_where_forced_tokens_came_often(tiny_model, make_cache, monkeypatch, early):
    decoder = decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY), compiles=True)
    guide = ScriptedGuide(lambda tokens: SETS[0], lambda tokens: [11] * (places(tokens, 4)[1] == 2))
    kept = []
    note = decoder.expectations.note

    def noted(*arguments, **kind):
        note(*arguments, **kind)
        kept.append(decoder.expectations.may_be_forced(arguments[0]))

    monkeypatch.setattr(decoder.expectations, "note", noted)
    recorded = Recorded(monkeypatch)
    text_of(decoder, guide, STRATEGIES["greedy"], most=100)
    assert kept[-1]
    handed_over = [index for kind, index in recorded.events[-60:] if kind == "handed over"]
    read = [index for kind, index in recorded.events[-60:] if kind == "read"]
    # For each token one step and one draw, or both together.
    assert handed_over.count(None) <= len(read) + 1


def test_a_step_is_not_built_where_forced_tokens_are_expected(tiny_model, make_cache, monkeypatch):
    decoder, built, guide = (
        decoder_for(tiny_model, make_cache(tiny_model, max_seq_len=CAPACITY)),
        [],
        ScriptedGuide(lambda tokens: SETS[0], lambda tokens: [11, 12] * (len(tokens) % 3 == 1)),
    )
    step = decoder.step_in_parts
    monkeypatch.setattr(
        decoder, "step_in_parts", lambda token: built.append(len(guide.tokens)) or step(token)
    )
    text_of(decoder, guide, STRATEGIES["greedy"], most=60)
    # Each token that is drawn is followed by two that are forced, which is expected from the third time on.
    assert built == [0, 3]
