"""What of a conversation is stored, and what a prefix file puts before messages."""

import os
from pathlib import Path

import pytest
from stored_prefixes import SYSTEM, answer, entries, load_with_cache
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.errors import UsageError
from metal_gen.generation.prompt import encode_as_set
from metal_gen.prefix_cache.entry import Entry

QUESTION = "Tell me a long story about a fox, an owl, a bear and a turtle who live in a forest. " * 4


def ask(conversation, text):
    return list(conversation.ask(text))[-1].statistics


@pytest.mark.parametrize("arch", ["qwen3", "qwen3_next"])
def test_answers_are_never_stored(tmp_path, arch):
    """Turns share what was said before them, and that is answers too."""
    checkpoint = write_text_checkpoint(tmp_path / "model", arch=arch, max_position_embeddings=2048)
    for _ in range(2):
        model = load_with_cache(tmp_path, str(checkpoint), max_seq_len=1500, system="s " * 100)
        conversation = metal_gen.Conversation(model, max_tokens=70)
        statistics = ask(conversation, QUESTION)
        first = statistics.prompt_tokens
        for _ in range(2):
            ask(conversation, "And then?")
        assert model.prefixes.take_notices() == []
    assert statistics.stored_tokens > 0
    assert max(Entry(path).notes.tokens for path in entries(tmp_path)) <= first


def test_a_saved_conversation_uses_what_is_stored(tmp_path):
    answer(load_with_cache(tmp_path), "Hello.")
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello! " * 40},
    ]
    for _ in range(2):
        conversation = metal_gen.Conversation(load_with_cache(tmp_path), messages, max_tokens=4)
        assert ask(conversation, "Go on.").stored_tokens > 0
    assert len(entries(tmp_path)) == 1


def test_retry_and_undo_keep_working(tmp_path):
    conversation = metal_gen.Conversation(load_with_cache(tmp_path, system=SYSTEM), max_tokens=4)
    texts = [ask(conversation, "Hello."), list(conversation.retry())[-1].statistics]
    assert texts[1].computed_tokens <= texts[0].computed_tokens
    conversation.undo()
    assert ask(conversation, "Hello again.").prompt_tokens
    assert len(entries(tmp_path)) == 1


THREADS = Path("/proc/self/task")


@pytest.mark.skipif(not THREADS.is_dir(), reason="threads are counted by Linux")
def test_writing_leaves_no_threads(tmp_path):
    """A thread in which MLX computes keeps a thread of MLX for good, and a model has many arrays."""
    model = load_with_cache(tmp_path)
    answer(model, "Hello.", system="Another. " * 40)
    before = len([*THREADS.iterdir()])
    answer(model, "Hello.")
    assert len(entries(tmp_path)) == 2
    arrays = len(model.decoder.cache.layout(1))
    assert len([*THREADS.iterdir()]) < before + arrays // 2


def messages_of(tmp_path, roles, **settings):
    file = tmp_path / "prefix.json"
    file.write_text(
        "[" + ", ".join(f'{{"role": "{role}", "content": "{role} words"}}' for role in roles) + "]"
    )
    return metal_gen.load(prefix_file=str(file), **settings)


def test_a_system_message_comes_before_the_messages_of_a_file(tmp_path):
    model = messages_of(tmp_path, ["user", "assistant"], system="Be brief.")
    one = metal_gen.Conversation(model)
    asked = one._encode([*one.messages, {"role": "user", "content": "Hello."}])
    assert asked.ids == encode_as_set(model.checkpoint, "Hello.", model.settings).ids


def test_two_system_messages_are_refused(tmp_path):
    model = messages_of(tmp_path, ["system", "user", "assistant"])
    with pytest.raises(UsageError, match="given twice"):
        metal_gen.generate(model, "Hello.", system="Be brief.", max_tokens=1)
    with pytest.raises(UsageError, match="given twice"):
        metal_gen.generate(
            model,
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}],
            max_tokens=1,
        )
    assert metal_gen.generate(model, "Hello.", max_tokens=1).token_ids


@pytest.mark.parametrize("prompt", ["", [], 7, [{}], ["text"], [{"role": "user"}]], ids=repr)
def test_a_prompt_that_cannot_be_used_is_a_sentence(tmp_path, prompt):
    (tmp_path / "prefix.txt").write_text("Rules.")
    model = metal_gen.load(prefix_file=str(tmp_path / "prefix.txt"))
    with pytest.raises(UsageError, match=r"prompt|conversation"):
        metal_gen.generate(model, prompt, max_tokens=1)


def test_a_text_before_messages_without_a_user_is_not_lost(tmp_path):
    (tmp_path / "prefix.txt").write_text("Rules of the game.")
    model = metal_gen.load(prefix_file=str(tmp_path / "prefix.txt"))
    said = [{"role": "assistant", "content": "Hello."}]
    with_text = metal_gen.generate(model, said, max_tokens=1)
    without = metal_gen.generate(metal_gen.load(), said, max_tokens=1)
    assert with_text.statistics.prompt_tokens > without.statistics.prompt_tokens


def test_a_pipe_can_be_a_prefix_file(tmp_path):
    read, write = os.pipe()
    os.write(write, b"These are the rules. ")
    os.close(write)
    try:
        model = metal_gen.load(prefix_file=f"/dev/fd/{read}")
        conversation = metal_gen.Conversation(model, max_tokens=2)
        assert ask(conversation, "Hello.").prompt_tokens > 5
        assert ask(conversation, "Hello.").prompt_tokens > 5
    finally:
        os.close(read)
