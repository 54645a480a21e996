"""Texts under a constraint: whole documents, and a word for those that are none."""

import json

import pytest
from tiny_text_checkpoint import CHATML, END_THINK, THINK, remove_bytes, write_text_checkpoint

import metal_gen
from metal_gen.config.settings import Settings
from metal_gen.engine.stopping import FinishDetail
from metal_gen.errors import IncompleteError, NoAnswerError, UsageError
from metal_gen.generation.loading import prepare
from metal_gen.generation.pieces import BOUND
from metal_gen.sampling.logits_error import NoTokenLeftError

OPENS = CHATML.rstrip() + "{{ '<think>' }}"
SWITCH = (
    CHATML + "{% if enable_thinking is defined and not enable_thinking %}{{ '<think></think>' }}{% endif %}"
)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "ok": {"type": "boolean"}},
    "required": ["name", "ok"],
    "additionalProperties": False,
}
RANDOM = {"temperature": 1.5, "max_tokens": 150}


@pytest.fixture(scope="module")
def story():
    return metal_gen.load(max_seq_len=256)


@pytest.fixture
def load(tmp_path):
    def load(says=None, **changes):
        folder = write_text_checkpoint(tmp_path / "model", says=says, **changes)
        return metal_gen.load(folder, max_seq_len=256)

    return load


@pytest.mark.parametrize("seed", range(6))
def test_a_document_is_whole(story, seed):
    made = metal_gen.generate(story, "Ann", schema=PERSON, seed=seed, thinking=False, **RANDOM)
    document = json.loads(made.text)
    assert list(document) == ["name", "ok"]
    assert (made.complete, made.finish, made.finish_reason) == (True, FinishDetail.GRAMMAR, "stop")
    assert made.shortcoming is None
    assert " " not in made.text.replace(document["name"], "")


@pytest.mark.parametrize("constraint", [{"regex": " "}, {"regex": "\n"}, {"choice": ["\t"]}])
def test_an_answer_of_blanks_is_whole(story, constraint):
    made = metal_gen.generate(story, "Ann", thinking=False, **constraint)
    assert made.text == "".join(*constraint.values())
    assert (made.complete, made.shortcoming) == (True, None)


@pytest.mark.parametrize(
    "constraint",
    [
        metal_gen.Constraint.choice("yes", "no"),
        metal_gen.Constraint.regex("[a-c]{2}[0-9]+!"),
        metal_gen.Constraint.lark('start: "x" y+ "."\ny: "y"'),
        metal_gen.Constraint.schema(PERSON),
    ],
    ids=["choice", "regex", "grammar", "schema"],
)
def test_log_probabilities_make_no_other_text(story, constraint):
    made = [
        metal_gen.generate(
            story, "Ann", constraint=constraint, seed=5, thinking=False, logprobs=logprobs, **RANDOM
        )
        for logprobs in (None, 2)
    ]
    assert made[0].token_ids == made[1].token_ids
    assert len(made[1].logprobs) == len(made[1].token_ids)
    assert all(each.sampling_logprob <= 1e-6 for each in made[1].logprobs)
    assert made[0].complete


def test_samples_have_each_a_document(story):
    texts = metal_gen.generate_samples(story, "Ann", 3, schema=PERSON, seed=1, thinking=False, **RANDOM)
    assert len({text.text for text in texts}) > 1
    assert all(json.loads(text.text) for text in texts)


@pytest.mark.parametrize(
    ("settings", "finish", "hint"),
    [
        ({"max_tokens": 5}, FinishDetail.MAX_TOKENS, f"raise --max-tokens, or {BOUND}"),
        ({"stop": ["ame"]}, FinishDetail.STOP_TEXT, "remove what ends the text"),
        # The token that ends a text is no part of it.
        ({"stop_token": ["}"]}, FinishDetail.STOP_TOKEN, "remove what ends the text"),
        ({"stop": ["}"]}, FinishDetail.STOP_TEXT, "remove what ends the text"),
    ],
    ids=range(4),
)
def test_what_is_cut_is_no_document(story, settings, finish, hint):
    made = metal_gen.generate(story, "Ann", schema=PERSON, seed=2, thinking=False, **{**RANDOM, **settings})
    assert (made.complete, made.finish) == (False, finish)
    assert isinstance(made.shortcoming, IncompleteError)
    assert made.shortcoming.exit_code == 9
    assert made.shortcoming.hint.startswith(hint)


def test_a_document_that_a_loop_ends_is_not_told_to_let_it_go_on(load):
    model = load(b"ab", forever=True)
    made = metal_gen.generate(model, "hi", regex="[ab]*!", break_loops=True, max_tokens=200)
    assert (made.complete, made.finish) == (False, FinishDetail.LOOP)
    assert made.shortcoming.hint.startswith("the model repeats itself: say in the prompt")


def test_a_number_that_a_limit_cuts_is_no_document_though_it_would_fit(load):
    model = load(b"1234567")
    made = metal_gen.generate(model, "hi", schema={"type": "integer"}, max_tokens=3)
    assert (made.text, made.complete) == ("123", False)
    made = metal_gen.generate(model, "hi", regex="123", max_tokens=3)
    assert (made.text, made.complete, made.finish) == ("123", True, FinishDetail.GRAMMAR)
    made = metal_gen.generate(model, "hi", schema={"type": "integer"})
    assert (made.text, made.complete, made.finish) == ("1234567", True, FinishDetail.EOS)


def test_the_grammar_goes_before_least_lengths_and_bans(story):
    settings = {"choice": ["yes"], "seed": 1, "thinking": False}
    made = metal_gen.generate(story, "Ann", min_tokens=9, ignore_eos=True, ban_token=["e"], **settings)
    assert (made.text, made.complete) == ("yes", True)
    # Of what is drawn, banned tokens are left out.
    made = metal_gen.generate(story, "Ann", regex="[ab]{6}", logit_bias={"a": -100.0}, seed=1, thinking=False)
    assert made.text == "bbbbbb"


@pytest.mark.parametrize("logprobs", [None, 1])
def test_a_banned_token_comes_where_there_is_no_other(load, logprobs):
    settings = {"ban_token": ("101", "10"), "logprobs": logprobs, "max_tokens": 180}
    model = load()
    assert metal_gen.generate(model, "hi", choice=("yes",), **settings).text == "yes"
    with pytest.raises(NoTokenLeftError):
        metal_gen.generate(model, "hi", regex="[e\\n]x", **settings)
    cut = metal_gen.generate(model, "hi", prefill="<think>a", thinking_budget=1, **settings)
    assert "\n\nConsidering" in cut.thinking


@pytest.mark.parametrize("tail", [b"", b"\n"])
def test_the_constraint_begins_after_the_thinking(load, tail):
    model = load([*b"Hm: no.", END_THINK, *tail, *b"x42y"], chat_template=OPENS)
    made = metal_gen.generate(model, "hi", regex="[0-9]{2}")
    assert made.thinking == "Hm: no."
    assert made.complete
    assert made.text.isdecimal()
    assert len(made.text) == 2


def test_a_model_that_may_think_is_asked_first(load):
    says = [THINK, *b"Hm", END_THINK, *b"42"]
    made = metal_gen.generate(load(says, chat_template=SWITCH), "hi", regex="[0-9]{2}")
    assert (made.thinking, made.complete) == ("Hm", True)
    made = metal_gen.generate(load(says, chat_template=SWITCH), "hi", regex="[0-9]{2}", thinking=False)
    assert (made.thinking, made.complete) == ("", True)
    # A template that knows no thinking is one of a model that does not think.
    made = metal_gen.generate(load(says), "hi", regex="[0-9]{2}")
    assert (made.thinking, made.complete) == ("", True)
    made = metal_gen.generate(load(b"17", chat_template=SWITCH), "hi", regex="[0-9]{2}")
    assert (made.thinking, made.text) == ("", "17")


def test_a_text_cut_in_its_thinking_has_no_answer(load):
    model = load(b"Hm: no.", chat_template=OPENS)
    made = metal_gen.generate(model, "hi", regex="[0-9]{2}", max_tokens=4)
    assert made.complete is False
    assert isinstance(made.shortcoming, NoAnswerError)


def test_a_base_model_and_raw_prompts_are_constrained_from_the_first_token(load):
    model = load([THINK, *b"x1"], chat_template=None)
    assert metal_gen.generate(model, "hi", regex="[0-9]x?").complete
    model = load([THINK, *b"x1"], chat_template=SWITCH)
    assert metal_gen.generate(model, "hi", raw=True, regex="[0-9]x?").complete


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"schema": {"not": {}}}, "schema: the schema has the keyword not"),
        ({"regex": "a", "choice": ["b"]}, "regex and choice are both set"),
        ({"regex": "a", "prefill": "b"}, "prefill contradicts regex"),
        ({"regex": "(?=a)"}, "look-around"),
        ({"choice": []}, "choice must have at least one text"),
        ({"schema": "{"}, "schema is not JSON"),
        ({"constraint": metal_gen.Constraint.schema("{")}, "schema is not JSON"),
        ({"constraint": metal_gen.Constraint.choice("\ud800")}, "choice must be a list"),
    ],
    ids=range(8),
)
def test_what_cannot_be_used_is_refused_before_anything_is_computed(story, settings, part):
    with pytest.raises(UsageError) as error:
        metal_gen.stream_generate(story, "Ann", **settings)
    assert part in error.value.message


def test_thinking_without_a_token_for_its_tag(load):
    model = load(b"Hm</think>42", chat_template=OPENS, has_tags=False)
    with pytest.raises(UsageError, match="is not a token of its own"):
        metal_gen.generate(model, "hi", regex="[0-9]{2}")


def test_a_conversation_has_documents_too(story):
    conversation = metal_gen.Conversation(story, choice=["yes", "no"], thinking=False, max_tokens=20)
    first = metal_gen.generation.pieces.join(list(conversation.ask("Well?")))
    assert first.complete
    assert conversation.messages[-1]["content"] in ("yes", "no")
    conversation.change(regex="[0-9]{3}")
    assert metal_gen.generation.pieces.join(list(conversation.ask("How many?"))).text.isdecimal()
    with pytest.raises(UsageError, match="keyword not"):
        conversation.change(schema={"not": {}})


def test_a_model_that_would_not_think_is_not_made_to_by_a_constraint(load):
    model = load(b"abc", chat_template=SWITCH)
    settings = {"choice": ["yes", "no"], "samples": 30, "seed": 1, "temperature": 1.0}
    made = metal_gen.generate_samples(model, "hi", **settings)
    assert [text.thinking for text in made] == [""] * 30
    assert {text.text for text in made} == {"yes", "no"}
    with_logprobs = metal_gen.generate_samples(model, "hi", logprobs=2, **settings)
    assert [text.token_ids for text in with_logprobs] == [text.token_ids for text in made]


def test_what_cannot_be_written_is_refused_before_the_weights_are_read(tmp_path):
    folder = write_text_checkpoint(tmp_path / "model")
    remove_bytes(folder, "é".encode())
    with pytest.raises(UsageError, match="the choice needs the byte 0xc3"):
        prepare(Settings(model=str(folder)).override({"choice": ("é",)}, "--choice"))
