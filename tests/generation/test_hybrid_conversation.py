"""Tests conversations with linear attention: answers as of fresh runs, and states that are used again."""

import numpy as np
import pytest
from test_conversation import ASCII, QWEN3_TEMPLATE, REQUESTS, spied
from tiny_checkpoint import LINEAR_ATTENTION
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.config.settings import Settings
from metal_gen.device.backend import runs_on_cpu
from metal_gen.engine.cached_text import TAIL_TOKENS
from metal_gen.generation import loading
from metal_gen.generation.loading import prepare
from metal_gen.models.kernels.chosen import ModelKernels

pytestmark = [pytest.mark.metal, pytest.mark.usefixtures("without_fusing")]

# A GPU computes one token and many by other kernels, which add up in another order.
TOLERANCE = 2e-4 if runs_on_cpu() else 1e-3
VARIANTS = {
    "plain": ({}, {}),
    "no thinking": ({}, {"thinking": False}),  # The template drops tags that it puts before an answer.
    "chunks": ({"chunk_size": 16}, {}),
    "two sequences": ({"batch_size": 2}, {}),
    "compiled": ({"compile": "on"}, {}),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    config = {"model_type": "qwen3_5_text", **LINEAR_ATTENTION, "partial_rotary_factor": 0.5}
    folder = tmp_path_factory.mktemp("hybrid")
    return write_text_checkpoint(folder, chat_template=QWEN3_TEMPLATE, **config)


class Pair:
    """A conversation, and a second model that computes each of its prompts from the beginning."""

    def __init__(self, folder, options, **settings):
        self.settings = {"max_tokens": 12, "temperature": 1.0, "seed": 1, **ASCII, **settings}
        self.chat = metal_gen.Conversation(metal_gen.load(folder, **options), **self.settings)
        self.fresh = metal_gen.load(folder, **options)
        self.spy, self.fresh_spy = spied(self.chat.model), spied(self.fresh)

    def turn(self, pieces):
        """Compare text and logits of an answer with a fresh run. Return the tokens computed and in all."""
        self.spy.scores, self.fresh_spy.scores = [], []
        pieces = list(pieces)
        statistics = pieces[-1].statistics
        settings = {**self.settings, "seed": statistics.seed}
        wanted = metal_gen.generate(self.fresh, self.chat.messages[:-1], **settings)
        assert [piece.token_id for piece in pieces] == wanted.token_ids
        for mine, theirs in zip(self.spy.scores, self.fresh_spy.scores, strict=True):
            np.testing.assert_allclose(np.array(mine), np.array(theirs), atol=TOLERANCE)
        return statistics.computed_tokens, statistics.prompt_tokens


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_turn_computes_little_more_than_is_new(folder, variant):
    options, settings = VARIANTS[variant]
    pair = Pair(folder, options, **settings)
    _, before = pair.turn(pair.chat.ask(REQUESTS[0]))
    for request in REQUESTS[1:]:
        computed, tokens = pair.turn(pair.chat.ask(request))
        assert computed <= tokens - before + TAIL_TOKENS
        before = tokens


def test_an_answer_anew_computes_the_end_of_the_prompt(folder):
    pair = Pair(folder, {})
    pair.turn(pair.chat.ask(REQUESTS[0]))
    pair.turn(pair.chat.ask(REQUESTS[1]))
    for _ in range(2):
        computed, _ = pair.turn(pair.chat.retry())
        assert computed == TAIL_TOKENS


def test_a_turn_that_is_taken_back_leaves_the_states_before_it(folder):
    pair = Pair(folder, {})
    _, first = pair.turn(pair.chat.ask("a" * 90))
    pair.turn(pair.chat.ask(REQUESTS[1]))
    pair.chat.undo()
    computed, tokens = pair.turn(pair.chat.ask("something else"))
    assert computed <= tokens - first + TAIL_TOKENS
    pair.chat.undo()
    pair.turn(pair.chat.ask(REQUESTS[0]))


def test_what_is_forgotten_is_not_in_the_states(folder):
    pair = Pair(folder, {})
    pair.chat.set_system("Be brief.")
    for request in REQUESTS:
        pair.turn(pair.chat.ask(request))
    pair.chat.forget()
    pair.turn(pair.chat.ask("a"))
    pair.chat.forget(2)
    pair.turn(pair.chat.retry())
    pair.turn(pair.chat.ask("b"))


@pytest.mark.quick
def test_an_answer_that_is_broken_off_can_be_gone_on_from(folder):
    pair = Pair(folder, {})
    pair.turn(pair.chat.ask(REQUESTS[0]))
    pieces = pair.chat.ask(REQUESTS[1])
    next(pieces)
    pieces.close()
    pair.turn(pair.chat.retry())
    pair.turn(pair.chat.ask(REQUESTS[2]))


@pytest.mark.quick
def test_kernels_are_tried_before_weights_are_read_in_a_thread(folder, monkeypatch):
    """MLX must not be used in two threads at once, and a trial uses it."""
    prepared = prepare(Settings(model=str(folder)))
    monkeypatch.setattr(loading, "runs_on_cuda", lambda: False)  # No kernel is tried there for small models.
    calls = []
    for name, result in (("choose_kernels", ModelKernels()), ("described", "")):
        monkeypatch.setattr(
            loading, name, lambda *_, name=name, result=result, **__: calls.append(name) or result
        )
    prepared.in_background(lambda: calls.append("load")).result()
    assert calls == ["choose_kernels", "described", "load"]
