"""Tests that thinking is found in a model's text, whatever its tokens and the end of its prompt."""

import re

import pytest
from tiny_text_checkpoint import CHATML, END_THINK, THINK, replace_letter, write_text_checkpoint

import metal_gen
from metal_gen.checkpoint.checkpoint import Checkpoint
from metal_gen.errors import UsageError
from metal_gen.generation.prompt import encode_prompt

OPENS = CHATML.rstrip() + "{{ '<think> ' }}"
UNOPENED = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture
def load(tmp_path):
    """Load a model that says a given text for any prompt."""

    def load(says, **changes):
        return metal_gen.load(
            write_text_checkpoint(tmp_path / "model", says=says, **changes), max_seq_len=256
        )

    return load


@pytest.mark.parametrize("has_tags", [True, False])
def test_a_thinking_block_that_the_template_opens(load, has_tags):
    says = [*b"Abc", END_THINK, *b"\nTOP"] if has_tags else b"Abc</think>\nTOP"
    model = load(says, chat_template=OPENS, has_tags=has_tags)
    answer = metal_gen.generate(model, "hi")
    assert (answer.thinking, answer.text) == ("Abc", "TOP")
    answer = metal_gen.generate(model, "hi", stop=["P"])
    assert (answer.text, answer.stop_text) == ("TO", "P")


def test_stop_texts_apply_to_the_answer_only(load):
    model = load([THINK, *b"abSTOP", END_THINK, *b"xyz"])
    answer = metal_gen.generate(model, "hi", stop=["STOP", "z"])
    assert (answer.thinking, answer.text, answer.stop_text) == ("abSTOP", "xy", "z")


@pytest.mark.parametrize("thinking", [None, False])
@pytest.mark.parametrize("before", [[], [THINK, *b"hm", END_THINK]])
def test_a_tag_within_the_answer_is_shown(load, before, thinking):
    tags = [THINK] if not before else []
    model = load([*before, *b"Use", *tags, *b"now."])
    answer = metal_gen.generate(model, "hi", thinking=thinking)
    assert answer.text == ("Usenow." if before else "Use<think>now.")
    assert answer.thinking == ("hm" if before else "")


@pytest.mark.parametrize("constraint", [{}, {"regex": "[ab]{2}"}], ids=["free", "constrained"])
def test_a_tag_that_other_tokens_spell_is_text(load, constraint):
    template = CHATML + "{{ '\n' }}"
    model = load([THINK, *b"x</think>", END_THINK, *b"yes"], chat_template=template)
    answer = metal_gen.generate(model, "hi", thinking=True, **constraint)
    assert answer.thinking == "x</think>"
    assert re.fullmatch("[ab]{2}" if constraint else "yes", answer.text)
    answer = metal_gen.generate(load(b"<think>x", chat_template=template), "hi")
    assert (answer.thinking, answer.text) == ("", "<think>x")


def test_an_answer_under_a_constraint_is_no_thinking(load):
    model = load(b"<think>x", has_tags=False, chat_template=CHATML + "{{ '\n' }}")
    answer = metal_gen.generate(model, "hi", regex="<[a-z]+>x")
    assert (answer.thinking, answer.text, answer.complete) == ("", "<think>x", True)
    with pytest.raises(UsageError, match="regex cannot follow this model's thinking"):
        metal_gen.generate(model, "hi", regex="<[a-z]+>x", prefill="<think>")


def test_thinking_begins_after_the_same_blanks_for_its_text_and_its_end(load):
    model = load(["\xa0".encode()[0], "\xa0".encode()[1], THINK, *b"ab"])
    answer = metal_gen.generate(model, "hi", break_loops=True)
    assert (answer.thinking, answer.text) == ("", "\xa0<think>ab")
    answer = metal_gen.generate(load([*b" \n", THINK, *b"ab", END_THINK, *b"c"]), "hi")
    assert (answer.thinking, answer.text) == ("ab", "c")


def test_a_tag_that_the_user_ends_with_opens_no_thinking(load):
    model = load(b"abc", chat_template=UNOPENED)
    answer = metal_gen.generate(model, "what is <think>")
    assert (answer.thinking, answer.text) == ("", "abc")
    conversation = [{"role": "user", "content": "<think>"}, {"role": "user", "content": "x <think>\n"}]
    assert not encode_prompt(model.checkpoint, conversation).opens_thinking


def test_tags_in_a_message_do_not_hide_the_template_s_own(tmp_path):
    checkpoint = Checkpoint(write_text_checkpoint(tmp_path, chat_template=OPENS))
    assert encode_prompt(checkpoint, "what is <think>").opens_thinking


def test_tokens_that_end_the_thinking_and_begin_the_answer(load):
    """The answer is not lost if one token contains the end of the thinking and the answer's beginning."""
    model = load(b"ab")
    from metal_gen.config.settings import Settings
    from metal_gen.generation.pieces import Clock
    from metal_gen.generation.text_assembly import TextAssembly
    from metal_gen.text.encoded_prompt import Prompt

    clock = Clock(prompt_tokens=1, computed_tokens=1, seed=0)
    assembly = TextAssembly(model.checkpoint.tokenizer, Prompt([1], True, True), Settings(), 0, clock)
    assert assembly._split("a</think>b", is_last=False) == ("a", None)
    assert assembly._split("c", is_last=True) == ("", "bc")


@pytest.mark.parametrize("is_last", [False, True])
def test_a_token_of_thinking_and_answer_loses_neither(tmp_path, is_last):
    says = b"abZ" if is_last else b"abZE"
    write_text_checkpoint(tmp_path, says=says, has_tags=False, chat_template=OPENS)
    replace_letter(tmp_path, "Z", "c</think>D")
    model = metal_gen.load(tmp_path, max_seq_len=256)
    for room in ({"max_tokens": len(says)}, {}):
        answer = metal_gen.generate(model, "hi", **room)
        assert (answer.thinking, answer.text) == ("abc", "D" if is_last else "DE")
        assert answer.statistics.thinking_tokens == 3
        assert not answer.ends_in_thinking
    assert metal_gen.generate(model, "hi", max_tokens=3, stop=["D"]).thinking == "abc"
    pieces = list(metal_gen.stream_generate(model, "hi", max_tokens=3))
    assert [piece.thinking for piece in pieces] == ["a", "b", "c"]
    assert [piece.is_thinking for piece in pieces] == [True, True, False]
    assert (pieces[-1].text, pieces[-1].thinking_end) == ("D", "c")


def test_a_prefill_is_put_after_the_prompt_and_before_the_answer(load):
    model = load(b"abc")
    plain = encode_prompt(model.checkpoint, "hi")
    prompt = encode_prompt(model.checkpoint, "hi", prefill="Sure: ")
    assert prompt.ids == [*plain.ids, *b"Sure: "]
    assert metal_gen.generate(model, "hi", prefill="Sure: ").text == "abc"
    raw = encode_prompt(model.checkpoint, "hi", prefill=" there", raw=True)
    assert raw.ids == list(b"hi there")


def test_a_prefill_can_hold_the_thinking(load):
    model = load([*b"on.", END_THINK, *b"Yes"])
    answer = metal_gen.generate(model, "hi", prefill="<think>\nGo ")
    assert (answer.thinking, answer.text) == ("on.", "Yes")


def test_a_prefill_after_an_opening_tag_is_thinking_with_a_notice(tmp_path):
    checkpoint = Checkpoint(write_text_checkpoint(tmp_path, chat_template=OPENS))
    assert any("prefill" in notice for notice in encode_prompt(checkpoint, "hi", prefill="x").notices)
    assert encode_prompt(checkpoint, "hi", prefill="x</think>y").notices == ()


def test_a_conversation_keeps_the_prefill_as_a_part_of_the_answer(load):
    model = load(b"abc")
    conversation = metal_gen.Conversation(model, prefill="Sure: ")
    assert "".join(piece.text for piece in conversation.ask("hi")) == "abc"
    assert conversation.messages[-1] == {"role": "assistant", "content": "Sure: abc"}
    conversation.change(prefill="<think>so")
    list(conversation.ask("hi"))
    assert conversation.messages[-1] == {"role": "assistant", "content": "", "reasoning_content": "soabc"}
