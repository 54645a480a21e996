"""Thinking that a budget or a loop ends, and answers that repeat themselves."""

import pytest
from tiny_text_checkpoint import CHATML, END_THINK, THINK, write_text_checkpoint

import metal_gen
from metal_gen.engine.stopping import FinishDetail
from metal_gen.generation.guides.loops import FEWEST_TOKENS, LONGEST_BLOCK, LoopDetector
from metal_gen.generation.guides.thinking import CLOSING, EMPTY_CLOSING

OPENS = CHATML + "<think>\n"
# The line end is a token of the prompt here.
OPENS_A_LINE = CHATML + "{{ '<think>\n' }}"
SENTENCE = CLOSING.removesuffix("</think>\n\n")


@pytest.fixture
def load(tmp_path):
    def load(says, **changes):
        folder = write_text_checkpoint(tmp_path / "model", says=says, **changes)
        return metal_gen.load(folder, max_seq_len=600)

    return load


@pytest.mark.parametrize("constraint", [{}, {"regex": "[0-9]{2}"}], ids=["free", "constrained"])
@pytest.mark.parametrize("budget", [1, 4, 9])
def test_a_budget_ends_the_thinking_with_a_sentence(load, budget, constraint):
    model = load(b"abcdefgh", forever=True, chat_template=OPENS)
    made = metal_gen.generate(model, "hi", thinking_budget=budget, max_tokens=300, **constraint)
    assert made.thinking == ("abcdefgh" * 3)[:budget] + SENTENCE
    assert made.thinking_cut == "budget"
    assert made.text
    assert made.complete == (True if constraint else None)


def test_a_budget_that_is_not_used_up_changes_nothing(load):
    model = load([*b"Hm: no.", END_THINK, *b"\nx42"], chat_template=OPENS)
    free = metal_gen.generate(model, "hi")
    made = metal_gen.generate(model, "hi", thinking_budget=50)
    assert (made.token_ids, made.thinking, made.text) == (free.token_ids, "Hm: no.", "x42")
    assert made.thinking_cut is None


@pytest.mark.parametrize("template", [OPENS, CHATML], ids=["opened", "by the model"])
def test_a_budget_of_nothing_leaves_the_thinking_empty(load, template):
    says = b"abc" if template == OPENS else [THINK, *b"abc"]
    made = metal_gen.generate(load(says, chat_template=template), "hi", thinking_budget=0, max_tokens=30)
    assert made.thinking.strip() == ""
    assert made.token_ids[-len(EMPTY_CLOSING) :] != []
    assert made.thinking_cut == "budget"


def test_a_budget_holds_again_when_thinking_is_opened_again(load):
    model = load([*b"ab", END_THINK, *b"yes", THINK, *b"cdfghijklm"], chat_template=OPENS_A_LINE)
    made = metal_gen.generate(model, "hi", thinking_budget=5, max_tokens=300)
    assert made.thinking == "ab"
    assert made.text.startswith("yes<think>cdfgh" + SENTENCE)
    assert made.thinking_cut == "budget"


def test_a_tag_within_thinking_does_not_put_off_its_end(load):
    model = load([THINK, *b"ab"], forever=True)
    made = metal_gen.generate(model, "hi", thinking_budget=5, max_tokens=300)
    assert made.thinking == "ab<think>ab" + SENTENCE
    made = metal_gen.generate(model, "hi", break_loops=True, max_tokens=300)
    assert made.thinking_cut == "loop"


def test_a_loop_in_thinking_ends_it_and_leaves_an_answer(load):
    model = load(b"abcdefgh", forever=True, chat_template=OPENS)
    made = metal_gen.generate(model, "hi", break_loops=True, regex="[0-9]{2}", max_tokens=300)
    assert made.thinking_cut == "loop"
    assert made.thinking == "abcdefgh" * 8 + SENTENCE
    assert made.complete
    free = metal_gen.generate(model, "hi", regex="[0-9]{2}", max_tokens=300)
    assert free.thinking_cut is None
    assert free.ends_in_thinking


def test_a_loop_in_the_answer_ends_the_text(load):
    model = load(b"abcdefgh", forever=True)
    made = metal_gen.generate(model, "hi", break_loops=True, max_tokens=300)
    assert (made.text, made.finish, made.finish_reason) == ("abcdefgh" * 8, FinishDetail.LOOP, "stop")
    assert len(metal_gen.generate(model, "hi", max_tokens=300).token_ids) == 300


def test_log_probabilities_do_not_change_how_thinking_ends(load):
    model = load(b"abcdefgh", forever=True, chat_template=OPENS)
    settings = {"thinking_budget": 5, "regex": "[0-9]{2}", "max_tokens": 300, "seed": 1}
    made = [metal_gen.generate(model, "hi", logprobs=logprobs, **settings) for logprobs in (None, 1)]
    assert made[0].token_ids == made[1].token_ids
    assert len(made[1].logprobs) == len(made[1].token_ids)


def first_repetition(tokens):
    """Find by comparing all blocks what the detector finds from counts."""
    for end in range(1, len(tokens) + 1):
        for length in range(1, LONGEST_BLOCK + 1):
            part = tokens[max(0, end - max(4 * length, FEWEST_TOKENS)) : end]
            if len(part) >= max(4 * length, FEWEST_TOKENS) and part[length:] == part[:-length]:
                return end
    return None


@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 100, 128, 129])
def test_blocks_of_any_length_are_found_when_they_have_come_often_enough(length):
    tokens = [7, 8, 9] + [1000 + place for place in range(length)] * 70
    tokens = tokens[: 3 + 6 * max(length, FEWEST_TOKENS)]
    detector = LoopDetector()
    found = next((place for place, token in enumerate(tokens, 1) if detector.add(token)), None)
    assert found is None if length > LONGEST_BLOCK else found == first_repetition(tokens)


def test_what_nearly_repeats_itself_is_no_loop():
    detector = LoopDetector()
    rows = [token for row in range(60) for token in (5, 6, 7, 8, 100 + row)]
    assert not any(detector.add(token) for token in rows)
