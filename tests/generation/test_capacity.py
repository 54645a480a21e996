"""Tests the default size of the cache, which depends on the work, the model and the memory."""

import pytest
from tiny_checkpoint import tiny_config, write_checkpoint
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.config.settings import Settings
from metal_gen.engine.stopping import ANSWER_TOKENS, LEAST_ANSWER_TOKENS
from metal_gen.errors import DoesNotFitError
from metal_gen.generation.loading import prepare
from metal_gen.generation.memory.capacity import CHAT_TOKENS, USUAL_TOKENS
from metal_gen.text.encoded_prompt import Prompt

TRAINED = 40_960


@pytest.fixture(scope="module")
def long_model(tmp_path_factory):
    """A model with a long context."""
    config = tiny_config("qwen3", max_position_embeddings=TRAINED)
    return str(write_checkpoint(tmp_path_factory.mktemp("long"), config))


def prepared_for(folder, **settings):
    return prepare(Settings(model=folder, **settings))


def limit_for(folder, max_seq_len):
    """Set the memory to just enough for a cache of this many tokens."""
    return prepared_for(folder, max_seq_len=max_seq_len, chunk_size=16).plan.total_bytes


def capacity(prepared):
    assert prepared.plan.cache.max_seq_len == prepared.settings.max_seq_len
    return prepared.plan.cache.max_seq_len


@pytest.mark.parametrize(
    ("prompt_tokens", "max_tokens", "expected"),
    [
        (10, 20, USUAL_TOKENS),
        (10, None, 10 + ANSWER_TOKENS),
        (3624, None, 3624 + ANSWER_TOKENS),
        (3624, 100, 3724),
        (TRAINED - 100, None, TRAINED),
        (TRAINED - 100, 101, TRAINED),
        (TRAINED, None, TRAINED),
    ],
)
def test_the_cache_holds_the_prompt_and_its_answer(long_model, prompt_tokens, max_tokens, expected):
    prepared = prepared_for(long_model, max_tokens=max_tokens).for_prompt(prompt_tokens)
    assert capacity(prepared) == expected


def test_a_set_capacity_stays(long_model):
    prepared = prepare(Settings(model=long_model).override({"max_seq_len": 5000}, "job.toml"))
    for chosen in (prepared.for_prompt(10), prepared.for_prompt(4900), prepared.for_chat()):
        assert capacity(chosen) == 5000
        assert chosen.settings.source("max_seq_len") == "job.toml"
    with pytest.raises(DoesNotFitError, match=r"max_seq_len is 5000 \(job.toml\)"):
        prepared.for_prompt(5001)


def test_a_short_model_has_a_short_cache(tmp_path):
    folder = str(write_checkpoint(tmp_path, tiny_config("qwen3", max_position_embeddings=300)))
    prepared = prepared_for(folder)
    for chosen in (prepared.for_prompt(10), prepared.for_chat()):
        assert capacity(chosen) == 300
        assert "trained" in chosen.settings.source("max_seq_len")


def test_a_chat_has_more_room_than_one_answer(long_model):
    assert capacity(prepared_for(long_model).for_chat()) == CHAT_TOKENS


def test_memory_limits_the_default_capacity(long_model):
    limit = limit_for(long_model, 3000)
    prepared = prepared_for(long_model, memory_limit_bytes=limit, chunk_size=16)
    assert capacity(prepared.for_prompt(2900)) >= 2900
    for chosen in (prepared.for_prompt(10), prepared.for_chat()):
        assert USUAL_TOKENS < capacity(chosen) < 3000, "some memory is left to others"
        assert "memory" in chosen.settings.source("max_seq_len")
        assert chosen.plan.fits
    with pytest.raises(DoesNotFitError) as caught:
        prepared.for_prompt(3001)
    assert "--max-seq-len" not in caught.value.hint, "no capacity that fits would do"
    assert "memory" in caught.value.message


def test_a_cache_smaller_than_usual_is_better_than_none(long_model):
    limit = limit_for(long_model, 500)
    prepared = prepared_for(long_model, memory_limit_bytes=limit, chunk_size=16)
    assert capacity(prepared.for_prompt(10)) == 500
    assert prepared.plan.cache.max_seq_len == 500
    with pytest.raises(DoesNotFitError):
        prepare(Settings(model=long_model, memory_limit_bytes=limit, chunk_size=16), most_slots=8)


def test_a_batch_keeps_the_usual_size_whatever_memory_there_is(long_model):
    for slots in (1, 8):
        prepared = prepare(Settings(model=long_model), most_slots=slots)
        assert prepared.plan.cache.max_seq_len == USUAL_TOKENS


def test_proposals_leave_room_for_an_answer(long_model):
    with pytest.raises(DoesNotFitError) as caught:
        prepared_for(long_model, max_seq_len=2048).for_prompt(3624)
    proposed = proposal(caught.value)
    assert proposed == 3624 + ANSWER_TOKENS
    prepared_for(long_model, max_seq_len=proposed).for_prompt(3624)
    with pytest.raises(DoesNotFitError) as caught:
        prepared_for(long_model, max_seq_len=2048).for_prompt(TRAINED - LEAST_ANSWER_TOKENS)
    assert proposal(caught.value) == TRAINED
    with pytest.raises(DoesNotFitError) as caught:
        prepared_for(long_model, max_seq_len=2048).for_prompt(TRAINED - LEAST_ANSWER_TOKENS + 1)
    assert "--max-seq-len" not in caught.value.hint


def proposal(error):
    return int(error.hint.split("--max-seq-len ")[1].split(")")[0])


def test_a_loaded_model_proposes_what_memory_holds(tmp_path):
    folder = str(write_text_checkpoint(tmp_path, max_position_embeddings=TRAINED))
    limit = limit_for(folder, 3000)
    model = metal_gen.load(folder, memory_limit_bytes=limit, chunk_size=16)
    assert model.plan.cache.max_seq_len == USUAL_TOKENS
    with pytest.raises(DoesNotFitError) as caught:
        metal_gen.generate(model, Prompt([1] * 2500))
    assert proposal(caught.value) == 3000
