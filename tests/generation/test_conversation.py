"""Tests conversations over one cache: the same answers as fresh runs, from as few tokens as possible."""

import json
from itertools import takewhile

import mlx.core as mx
import numpy as np
import pytest
from tiny_text_checkpoint import END_THINK, IM_END, TEXT_VOCAB, THINK, write_text_checkpoint

import metal_gen
from metal_gen.checkpoint.bundled import BUNDLED_FOLDER
from metal_gen.device.backend import compiles_steps
from metal_gen.errors import UsageError
from metal_gen.generation.conversation import ConversationFullError
from metal_gen.generation.prompt import encode_prompt

pytest_plugins = ("fixtures_text",)
pytestmark = pytest.mark.metal

QWEN3_TEMPLATE = json.loads((BUNDLED_FOLDER / "tokenizer_config.json").read_text())["chat_template"]
# Answers of a model of random weights are ASCII, because invalid UTF-8 would be encoded differently again.
ASCII = {"ban_token": [str(token) for token in range(128, TEXT_VOCAB)]}
REQUESTS = ("Who are you?", "And then?", "Why\nis that?")
# <|im_end|> \n <|im_start|> user \n, then the request, then <|im_end|> \n <|im_start|> assistant \n.
TOKENS_BETWEEN = 3 + len("user\n") + 3 + len("assistant\n")
NO_THOUGHT = ["<think>", *"\n\n", "</think>", *"\n\n"]
HELLO = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


class Spy:
    """A model that records how many prompt tokens it computes, and its logits."""

    def __init__(self, model):
        self._model = model
        self.computed = 0
        self.scores = []

    def __call__(self, tokens, cache, *, sequence_length=None, is_step=False):
        self.computed += tokens.shape[1] if sequence_length else 0
        return self._model(tokens, cache, sequence_length=sequence_length, is_step=is_step)

    def logits(self, hidden):
        scores = self._model.logits(hidden)
        self.scores.append(scores)
        return scores

    def __getattr__(self, name):
        return getattr(self._model, name)


def spied(model):
    model.decoder.model = Spy(model.decoder.model)
    return model.decoder.model


def answer(pieces):
    pieces = list(pieces)
    return "".join(piece.text for piece in pieces if not piece.is_thinking), pieces[-1].statistics


class Pair:
    """A conversation, and a second model that computes each of its prompts from the beginning."""

    def __init__(self, folder, options, **settings):
        self.chat = metal_gen.Conversation(metal_gen.load(folder, **options), **settings)
        self.fresh = metal_gen.load(folder, **options)
        self.settings = settings
        self.spy, self.fresh_spy = spied(self.chat.model), spied(self.fresh)
        self.held = []

    def turn(self, pieces):
        """Compare an answer with the fresh one: text, logits, and how much was computed."""
        self.spy.computed, self.spy.scores = 0, []
        pieces = list(pieces)
        statistics = pieces[-1].statistics
        asked = self.chat.messages[:-1]
        self.fresh_spy.scores = []
        wanted = metal_gen.generate(self.fresh, asked, **{**self.settings, "seed": statistics.seed})
        assert [piece.token_id for piece in pieces] == wanted.token_ids
        assert self.chat.messages[-1]["content"] == wanted.text
        assert len(self.spy.scores) == len(self.fresh_spy.scores) > 0
        for mine, theirs in zip(self.spy.scores, self.fresh_spy.scores, strict=True):
            np.testing.assert_allclose(np.array(mine), np.array(theirs), atol=2e-4)
        prompt = encode_prompt(self.fresh.checkpoint, asked, thinking=self.settings.get("thinking")).ids
        assert (statistics.prompt_tokens, statistics.computed_tokens) == (len(prompt), self.spy.computed)
        pairs = zip(self.held, prompt[:-1], strict=False)
        in_common = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
        assert statistics.computed_tokens == len(prompt) - in_common
        self.held = (prompt + wanted.token_ids)[: statistics.cache_tokens]
        return statistics


SLIDING = {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}
PENALTIES = {"top_k": 20, "repetition_penalty": 1.3, "presence_penalty": 0.5}
VARIANTS = {
    "greedy": ({}, {}, {"temperature": 0.0}),
    "sampled": ({}, {}, {"temperature": 1.0, "seed": 5}),
    "penalties": ({}, {}, {"temperature": 1.0, **PENALTIES}),
    "chunks": ({}, {"chunk_size": 7}, {"temperature": 1.0}),
    "sliding": (SLIDING, {"chunk_size": 16}, {"temperature": 1.0}),
    "two sequences": ({}, {"batch_size": 2}, {"temperature": 0.0}),
    "compiled": ({}, {"compile": "on"}, {"temperature": 1.0}),
}


@pytest.mark.usefixtures("without_fusing")
@pytest.mark.parametrize("variant", VARIANTS)
def test_each_turn_equals_a_fresh_run_and_computes_only_new_tokens(tmp_path, variant):
    changes, options, settings = VARIANTS[variant]
    folder = write_text_checkpoint(tmp_path, chat_template=QWEN3_TEMPLATE, **changes)
    pair = Pair(folder, options, max_tokens=12, **settings, **ASCII)
    compiles = variant == "compiled" or (compiles_steps("auto") and variant != "two sequences")
    assert (pair.chat.model.decoder.compiled is not None) is compiles
    first = pair.turn(pair.chat.ask(REQUESTS[0]))
    assert first.computed_tokens == first.prompt_tokens
    for request in REQUESTS[1:]:
        statistics = pair.turn(pair.chat.ask(request))
        # One more: the last token of the previous answer is not in the cache.
        assert statistics.computed_tokens == 1 + TOKENS_BETWEEN + len(request)


@pytest.fixture(scope="module")
def folder(text_checkpoints):
    """A model with random weights and Qwen3's template."""
    return write_text_checkpoint(text_checkpoints / "talker", chat_template=QWEN3_TEMPLATE)


@pytest.fixture
def talker(folder):
    """A conversation with a fresh copy of it."""
    return Pair(folder, {"chunk_size": 16}, max_tokens=12, temperature=1.0, seed=5, **ASCII)


def test_words_of_many_tokens_are_kept_too():
    pair = Pair(None, {"model_dtype": "float32"}, max_tokens=4, temperature=0.8, seed=1)
    pair.turn(pair.chat.ask("Tell me a story about a fox who lost a lantern."))
    statistics = pair.turn(pair.chat.ask("A poem, please."))
    assert statistics.computed_tokens < statistics.prompt_tokens / 2


def test_a_template_that_drops_text_needs_more_tokens(folder):
    """Without thinking, Qwen3's template puts tags before an answer, and drops them later."""
    pair = Pair(folder, {}, max_tokens=12, temperature=1.0, thinking=False, **ASCII)
    pair.turn(pair.chat.ask(REQUESTS[0]))
    statistics = pair.turn(pair.chat.ask(REQUESTS[1]))
    assert statistics.computed_tokens == 12 + TOKENS_BETWEEN + len(REQUESTS[1]) + len(NO_THOUGHT)


def test_thinking_is_kept_apart_and_left_out_of_the_next_prompt(tmp_path):
    says = [THINK, *b"hm.", END_THINK, *b"42"]
    folder = write_text_checkpoint(tmp_path, says=says, chat_template=QWEN3_TEMPLATE)
    pair = Pair(folder, {}, max_tokens=20)
    pair.turn(pair.chat.ask("hi"))
    assert pair.chat.messages[-1] == {"role": "assistant", "content": "42", "reasoning_content": "hm."}
    statistics = pair.turn(pair.chat.ask("hi"))
    assert statistics.computed_tokens == len("42") + TOKENS_BETWEEN + len("hi")


def test_dynamic_rope_scaling_computes_everything_once_it_stretches(tmp_path):
    """With dynamic scaling, keys depend on the length of the prompt that they were computed in."""
    changes = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 90}
    folder = write_text_checkpoint(tmp_path, chat_template=QWEN3_TEMPLATE, **changes)
    pair = Pair(folder, {"max_seq_len": 256}, max_tokens=12, temperature=0.0, **ASCII)
    computed = []
    for request in (*REQUESTS, "Go on."):
        pieces = pair.chat.ask(request)
        pair.held = pair.held if len(computed) < 2 else []
        computed.append(pair.turn(pieces))
    assert [each.computed_tokens < each.prompt_tokens for each in computed] == [False, True, False, False]
    pair.chat.forget(3)
    pair.held = []
    pair.turn(pair.chat.ask("Short."))


# Early ends


def test_a_stopped_answer_is_kept(talker):
    pieces = talker.chat.ask("hi")
    said = "".join(next(pieces).text for _ in range(5))
    pieces.close()
    assert talker.chat.messages[-1] == {"role": "assistant", "content": said}
    talker.held = encode_prompt(talker.fresh.checkpoint, talker.chat.messages[:-1]).ids + list(said.encode())
    statistics = talker.turn(talker.chat.ask("and then?"))
    assert statistics.computed_tokens == TOKENS_BETWEEN + len("and then?")


def test_a_stopped_prompt_is_taken_back_and_its_chunks_are_kept(talker):
    class StoppedError(Exception):
        pass

    def stop(done, total):
        assert total == 48
        if done == 32:
            raise StoppedError

    with pytest.raises(StoppedError):
        list(talker.chat.ask("x" * 29, on_prefill=stop))
    assert talker.chat.messages == []
    talker.held = encode_prompt(talker.fresh.checkpoint, [{"role": "user", "content": "x" * 29}]).ids[:32]
    assert talker.turn(talker.chat.ask("x" * 28)).computed_tokens == 47 - 32


def test_an_answer_may_be_empty(tmp_path):
    folder = write_text_checkpoint(tmp_path, says=[IM_END])
    chat = metal_gen.Conversation(metal_gen.load(folder))
    assert answer(chat.ask("hi"))[0] == ""
    assert chat.messages[-1] == {"role": "assistant", "content": ""}
    pieces = chat.ask("hm")
    pieces.close()
    assert chat.turns == 1


def test_other_texts_may_come_in_between(talker):
    talker.turn(talker.chat.ask("hi"))
    begun = talker.chat.ask("and then?")
    # An empty turn is not kept, and text that may begin a tag is held back.
    next(piece for piece in begun if piece.text)
    metal_gen.generate(talker.chat.model, "something else", max_tokens=3)
    with pytest.raises(UsageError, match="another text"):
        list(begun)
    assert talker.chat.turns == 2
    talker.held = []
    talker.turn(talker.chat.ask("where were we?"))


# Changes of earlier messages


def test_undo_removes_the_last_turn_and_keeps_the_rest_cached(talker):
    talker.turn(talker.chat.ask("hi"))
    before = list(talker.chat.messages)
    talker.turn(talker.chat.ask("and then?"))
    assert [message["content"] for message in talker.chat.undo()][:1] == ["and then?"]
    assert talker.chat.messages == before
    talker.turn(talker.chat.ask("and now?"))
    talker.chat.undo()
    talker.chat.undo()
    with pytest.raises(UsageError, match="nothing to take back"):
        talker.chat.undo()


def test_a_retry_is_another_answer_computed_from_one_token(talker):
    first = talker.turn(talker.chat.ask("hi"))
    answers = {talker.chat.messages[-1]["content"]}
    for _ in range(3):
        again = talker.turn(talker.chat.retry())
        assert again.computed_tokens == 1
        assert again.seed != first.seed
        answers.add(talker.chat.messages[-1]["content"])
    assert len(answers) == 4
    assert talker.chat.turns == 1
    talker.chat.retry().close()
    assert len(talker.chat.messages) == 2


def test_the_oldest_turns_are_forgotten_and_the_system_message_stays(talker):
    talker.chat.set_system("Be brief.")
    for request in REQUESTS:
        talker.turn(talker.chat.ask(request))
    assert [message["content"] for message in talker.chat.forget(2)][::2] == list(REQUESTS[:2])
    assert [message["role"] for message in talker.chat.messages] == ["system", "user", "assistant"]
    talker.turn(talker.chat.ask("hi"))
    for turns in (0, 3):
        with pytest.raises(UsageError, match=f"cannot forget {turns} of 2"):
            talker.chat.forget(turns)
    talker.chat.forget(2)
    assert talker.chat.messages == [{"role": "system", "content": "Be brief."}]


def test_the_system_message_is_the_first_and_can_be_changed(tmp_path):
    model = metal_gen.load(write_text_checkpoint(tmp_path), system="Be brief.")
    chat = metal_gen.Conversation(model)
    assert chat.system == "Be brief."
    list(chat.ask("hi"))
    chat.set_system("Be long.")
    assert [message["role"] for message in chat.messages] == ["system", "user", "assistant"]
    chat.set_system(None)
    assert (chat.system, chat.turns) == (None, 1)
    assert metal_gen.Conversation(model, HELLO).messages == HELLO


# Limits


def test_a_message_that_does_not_fit_changes_nothing(tmp_path):
    folder = write_text_checkpoint(tmp_path, says=b"abc", chat_template=QWEN3_TEMPLATE)
    chat = metal_gen.Conversation(metal_gen.load(folder, max_seq_len=60))
    list(chat.ask("hi"))
    before = list(chat.messages)
    with pytest.raises(ConversationFullError, match="65 tokens, and max_seq_len is 60") as caught:
        chat.ask("x" * 20)
    assert caught.value.tokens == 65
    assert chat.messages == before
    assert answer(chat.ask("x" * 12))[0] == "abc"
    kept = chat.count_tokens()
    chat.forget()
    assert chat.count_tokens() == kept - TOKENS_BETWEEN - len("hi") - len("abc")


def test_the_cache_may_fill_up_to_its_last_position(tmp_path):
    folder = write_text_checkpoint(tmp_path, says=b"abcdefghij", forever=True, chat_template=QWEN3_TEMPLATE)
    chat = metal_gen.Conversation(metal_gen.load(folder, max_seq_len=60))
    pieces = list(chat.ask("hi"))
    assert pieces[-1].finish is metal_gen.FinishDetail.CACHE_FULL
    assert pieces[-1].statistics.cache_tokens == 60
    with pytest.raises(ConversationFullError):
        chat.ask("hi")
    chat.undo()
    assert len(list(chat.ask("hi"))) == len(pieces)


def test_memory_does_not_grow_with_the_conversation(talker):
    buffers = [buffer.shape for buffer in talker.chat.model.decoder.cache.buffers]
    active = []
    for _ in range(5):
        list(talker.chat.ask("hi"))
        talker.spy.scores = []
        active.append(mx.get_active_memory())
    assert max(active[1:]) - min(active[1:]) <= 4096
    assert [buffer.shape for buffer in talker.chat.model.decoder.cache.buffers] == buffers


# Settings


def test_each_answer_uses_the_next_seed(talker):
    talker.chat.change(seed=7)
    seeds = [answer(talker.chat.ask("hi"))[1].seed, answer(talker.chat.retry())[1].seed]
    talker.chat.change(seed=2**64 - 1)
    seeds += [answer(talker.chat.ask("hi"))[1].seed, answer(talker.chat.ask("hi"))[1].seed]
    assert seeds == [7, 8, 2**64 - 1, 0]
    talker.chat.change(prefill="so", regex="[a-z]+")
    with pytest.raises(UsageError, match="prefill contradicts regex"):
        talker.chat.ask("hi")
    talker.chat.change_back("prefill")
    assert answer(talker.chat.ask("hi"))[1].seed == 1


def test_settings_change_from_the_next_answer_on(talker):
    talker.chat.change(max_tokens=3, top_k=None)
    assert len(list(talker.chat.ask("hi"))) == 3
    talker.chat.change_back("max_tokens")
    assert len(list(talker.chat.ask("hi"))) == 12


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"temperature": -1.0}, "temperature must be"),
        ({"warmth": 1}, "no setting warmth"),
        ({"max_seq_len": 5}, "when a model is loaded"),
        ({"samples": 2}, "one answer"),
        ({"raw": True}, "chat template"),
        ({"system": "x"}, "one of the messages"),
        ({"ban_token": ["no such"]}, "ban_token: "),
        ({"stop_token": ["no such"]}, "stop_token: "),
    ],
)
def test_settings_that_cannot_be_used_are_refused(talker, settings, reason):
    before = talker.chat.settings
    with pytest.raises(UsageError, match=reason):
        talker.chat.change(max_tokens=3, **settings)
    assert talker.chat.settings == before


def test_without_a_chat_template_there_is_no_conversation(tmp_path):
    model = metal_gen.load(write_text_checkpoint(tmp_path, chat_template=None))
    with pytest.raises(UsageError, match="needs a chat template"):
        metal_gen.Conversation(model)
