"""Whole texts with guesses of models: conversations, samples, constraints and stored prefixes."""

import pytest
from story_model import BUNDLED, write_story_model
from test_texts import seen
from tiny_text_checkpoint import CHATML, write_text_checkpoint

import metal_gen
from metal_gen.generation.guides.thinking import CLOSING

REQUEST = "Write a story about a fox, a lighthouse and a lantern."
RANDOM = {"temperature": 0.9, "max_tokens": 18, "seed": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(write_story_model(tmp_path_factory.mktemp("stories")))


@pytest.fixture(scope="module")
def plain(folder):
    return metal_gen.load(folder, max_seq_len=300, speculate="off")


@pytest.fixture(scope="module", params=["mtp", "draft"])
def guessing(request, folder):
    """The same model with guesses: of its own layers, or of the bundled model."""
    draft = str(BUNDLED) if request.param == "draft" else None
    return metal_gen.load(folder, max_seq_len=300, speculate=request.param, draft_model=draft)


def test_a_conversation_goes_on_as_without_guesses(plain, guessing):
    talks = [metal_gen.Conversation(model, **RANDOM) for model in (plain, guessing)]
    for text in (REQUEST, "Another one, about a robot."):
        pieces, expected = list(talks[1].ask(text)), list(talks[0].ask(text))
        assert [piece.token_id for piece in pieces] == [piece.token_id for piece in expected]
        counts = pieces[-1].statistics.speculation
        assert counts.accepted > counts.drafted / 3


def test_samples_are_those_without_guesses(plain, guessing):
    found, expected = (metal_gen.generate_samples(model, REQUEST, 2, **RANDOM) for model in (guessing, plain))
    assert [seen(each) for each in found] == [seen(each) for each in expected]
    assert all(each.statistics.speculation.accepted > 3 for each in found)


@pytest.mark.parametrize(
    "settings", [{"regex": "(Once|Long)( [a-z]+){4,8}\\."}, {"stop": ("fox",)}, {"logprobs": 2}], ids=str
)
def test_what_ends_or_constrains_a_text_does_so_at_the_same_place(plain, guessing, settings):
    found, expected = (
        metal_gen.generate(model, REQUEST, **{**RANDOM, **settings}) for model in (guessing, plain)
    )
    assert seen(found) == seen(expected)
    assert found.statistics.cache_tokens == expected.statistics.cache_tokens


@pytest.mark.parametrize("logprobs", [None, 1])
def test_thinking_ends_after_right_guesses_as_without_them(tmp_path, logprobs):
    opens = CHATML + "<think>\n"
    says = str(write_text_checkpoint(tmp_path, says=b"abcdefgh", forever=True, chat_template=opens))
    settings = {"thinking_budget": 7, "logprobs": logprobs, "max_tokens": 140}
    expected = metal_gen.generate(metal_gen.load(says, max_seq_len=200), "hi", **settings)
    model = metal_gen.load(says, max_seq_len=200, speculate="draft", draft_model=says)
    found = metal_gen.generate(model, "hi", **settings)
    assert found.statistics.speculation.accepted > 4
    assert seen(found) == seen(expected)
    assert expected.thinking == f"abcdefg{CLOSING.partition('</think>')[0]}"


def test_a_prefix_from_storage_is_gone_on_from(folder, tmp_path):
    stored = {"prefix_cache": True, "prefix_cache_dir": str(tmp_path), "prefix_cache_min_tokens": 4}
    texts = []
    for speculate in ("off", "mtp", "mtp"):
        model = metal_gen.load(folder, max_seq_len=300, speculate=speculate, **stored)
        texts.append(metal_gen.generate(model, REQUEST, **RANDOM))
    assert [seen(text) for text in texts[1:]] == [seen(texts[0])] * 2
    assert texts[2].statistics.speculation.accepted > 3
