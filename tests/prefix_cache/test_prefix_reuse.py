"""A prompt whose beginning is stored gives the text that it gives without, and computes less."""

import hashlib
import os
import random
import stat
from functools import partial

import mlx.core as mx
import pytest
from peak_memory import begin_peak, peak_since
from stored_prefixes import SYSTEM, answer, entries, load_with_cache
from tiny_text_checkpoint import write_text_checkpoint

import metal_gen
from metal_gen.errors import UsageError
from metal_gen.prefix_cache import folder as folder_module
from metal_gen.prefix_cache import prefix_cache as prefix_cache_module
from metal_gen.prefix_cache.entry import Entry, EntryError
from metal_gen.prefix_cache.keys import BLOCK, block_hashes
from metal_gen.text.encoded_prompt import Prompt

PROMPTS = [f"Tell me about a {animal}." for animal in ("fox", "owl", "bear")]


@pytest.fixture
def load(tmp_path):
    """Loads the bundled model with a prefix cache of its own."""
    return partial(load_with_cache, tmp_path)


@pytest.mark.quick
def test_a_system_message_is_computed_once(load, tmp_path):
    plain = metal_gen.load(chunk_size=64)
    stored = []
    for prompt in PROMPTS:
        result = answer(load(), prompt)
        assert result.token_ids == answer(plain, prompt).token_ids
        stored.append(result.statistics.stored_tokens)
        assert result.statistics.computed_tokens == result.statistics.prompt_tokens - stored[-1]
    assert stored[0] == 0
    assert stored[1] == stored[2] >= 64
    assert len(entries(tmp_path)) == 1


@pytest.mark.quick
def test_logits_are_equal_to_the_bit_when_cold_and_warm(load):
    """What decides is the ends of chunks, which are the same."""
    bits = []
    for _ in range(2):
        result = answer(load(chunk_size=100), PROMPTS[0], logprobs=3, temperature=1, seed=5)
        bits.append([(each.model_logprob, each.top_model_logprobs) for each in result.logprobs])
    assert bits[0] == bits[1]


def test_chunks_end_at_the_same_places_whatever_is_stored(load, tmp_path):
    """An entry that ends within a chunk of a longer system message is not used: last bits would differ."""
    spied = []
    for kept in (True, False):
        if not kept:
            for path in entries(tmp_path):
                path.unlink()
        else:
            answer(load(chunk_size=512), PROMPTS[0])
        model = load(chunk_size=512)
        ends = []
        model.decoder.cache.evaluate = lambda ends=ends, cache=model.decoder.cache: ends.append(
            cache.position
        )
        result = answer(model, PROMPTS[1] * 12, system=SYSTEM + "And they live far away. " * 12, max_tokens=2)
        assert result.statistics.stored_tokens == 0
        spied.append([end for end in ends if end])
    assert spied[0] == spied[1]
    again = answer(load(chunk_size=512), PROMPTS[1] * 12, system=SYSTEM + "And they live far away. " * 12)
    assert again.statistics.stored_tokens == spied[0][0]


def test_what_two_prompts_share_is_stored_when_it_is_seen_again(load, tmp_path):
    long = "Here is a list of animals: " + ", ".join(["fox", "owl", "bear", "turtle"] * 20)
    first = answer(load(), long + " Tell me of one.", system=None)
    assert entries(tmp_path) == []
    answer(load(), long + " Who is the smallest?", system=None)
    assert len(entries(tmp_path)) == 1
    third = answer(load(), long + " Tell me of one.", system=None)
    assert third.statistics.stored_tokens >= 64
    assert third.token_ids == first.token_ids


def test_a_longer_entry_serves_a_shorter_beginning(load, tmp_path):
    longer = SYSTEM + "And they live far away from here, where the winters are long. " * 3
    answer(load(), PROMPTS[0], system=longer)
    plain = answer(metal_gen.load(chunk_size=64), PROMPTS[1])
    result = answer(load(), PROMPTS[1])
    assert result.statistics.stored_tokens >= 64
    assert result.token_ids == plain.token_ids


def test_samples_and_a_conversation_use_it(load):
    answer(load(), PROMPTS[0])
    model = load()
    texts = metal_gen.generate_samples(
        model, PROMPTS[1], 2, system=SYSTEM, seed=1, temperature=1, max_tokens=6
    )
    plain = metal_gen.generate_samples(
        metal_gen.load(chunk_size=64), PROMPTS[1], 2, system=SYSTEM, seed=1, temperature=1, max_tokens=6
    )
    assert [text.token_ids for text in texts] == [text.token_ids for text in plain]
    assert texts[0].statistics.stored_tokens >= 64
    talk = metal_gen.Conversation(load(system=SYSTEM), max_tokens=4)
    first = list(talk.ask(PROMPTS[0]))
    assert first[-1].statistics.stored_tokens >= 64
    second = list(talk.ask("And then?"))
    assert second[-1].statistics.stored_tokens == 0
    assert second[-1].statistics.computed_tokens < first[-1].statistics.prompt_tokens


def test_an_answer_that_is_given_up_stores_nothing(load, tmp_path):
    pieces = metal_gen.stream_generate(load(), PROMPTS[0], system=SYSTEM, max_tokens=12)
    next(pieces)
    pieces.close()
    assert [path.name for path in (tmp_path / "prefixes").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_size": 128},
        {"model_dtype": "float32"},
        {"cache_dtype": "float16"},
        {"quantize": "8"},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    ],
    ids=str,
)
def test_what_changes_a_number_changes_the_key(load, change):
    answer(load(), PROMPTS[0])
    result = answer(load(**change), PROMPTS[1])
    assert result.statistics.stored_tokens == 0


def test_weights_that_have_changed_are_a_miss(load, tmp_path):
    model = str(write_text_checkpoint(tmp_path / "model", max_position_embeddings=1024))
    answer(load(model), "hello", system="s " * 100)
    assert answer(load(model), "again", system="s " * 100).statistics.stored_tokens
    os.utime(tmp_path / "model" / "model.safetensors", ns=(1, 1))
    assert answer(load(model), "again", system="s " * 100).statistics.stored_tokens == 0


@pytest.mark.parametrize("arch", ["qwen3_next", "qwen3_5_text", "qwen3_moe"])
def test_other_families_use_it_too(load, tmp_path, arch):
    """States of linear attention are stored with the keys and values."""
    sizes = {"arch": arch, "max_position_embeddings": 1024}
    if arch == "qwen3_5_text":
        sizes |= {"layer_types": ["linear_attention"] * 3 + ["full_attention"], "partial_rotary_factor": 0.25}
    model = str(write_text_checkpoint(tmp_path / "model", **sizes))
    settings = {"system": "s " * 100, "temperature": 1, "seed": 2, "logprobs": 1}
    # No chunk ends at 192 without the cache.
    cold = answer(load(model, chunk_size=100), "hello", **settings)
    warm = answer(load(model, chunk_size=100), "hello", **settings)
    assert cold.statistics.stored_tokens == 0
    assert warm.statistics.stored_tokens == 192
    assert warm.token_ids == cold.token_ids
    assert warm.logprobs == cold.logprobs
    assert answer(metal_gen.load(model, chunk_size=100), "hello", **settings).token_ids == cold.token_ids
    assert answer(load(model, chunk_size=100), "another", **settings).statistics.stored_tokens == 192


def test_quantized_models_use_it_too(load, tmp_path):
    model = str(write_text_checkpoint(tmp_path / "model", head_dim=64, max_position_embeddings=1024))
    settings = {"system": "s " * 100, "temperature": 1, "seed": 2, "logprobs": 1}
    cold, warm = (answer(load(model, quantize="8"), "hello", **settings) for _ in range(2))
    assert (cold.statistics.stored_tokens, warm.statistics.stored_tokens) == (0, 192)
    assert (warm.token_ids, warm.logprobs) == (cold.token_ids, cold.logprobs)


def test_a_block_is_known_by_its_tokens_and_all_before_them():
    ids = [random.Random(1).randrange(2**32) for _ in range(5 * BLOCK + 7)]
    expected, last = [], b""
    for begin in range(0, 5 * BLOCK, BLOCK):
        block = b"".join(token.to_bytes(4, "little") for token in ids[begin : begin + BLOCK])
        last = hashlib.blake2b(last + block, digest_size=16).digest()
        expected.append(last)
    assert block_hashes(ids) == expected
    assert block_hashes(ids[: BLOCK - 1]) == []


def test_a_prompt_is_hashed_once_however_often_it_is_looked_up(load, monkeypatch):
    """A long prompt has hundreds of blocks."""
    model = load()
    hashed = []
    monkeypatch.setattr(
        prefix_cache_module, "block_hashes", lambda ids: hashed.append(len(ids)) or block_hashes(ids)
    )
    for prompt in (Prompt(list(range(300))), Prompt(list(range(400)))):
        assert model.prefixes.find(prompt, model.decoder.cache) is None
        assert model.prefixes.boundary(prompt) in (0, 256)
        model.prefixes.remember(prompt)
    assert hashed == [299, 399]


def test_keys_and_values_in_8_bits_are_stored_as_they_are(load, tmp_path):
    model = str(write_text_checkpoint(tmp_path / "model", head_dim=64, max_position_embeddings=1024))
    settings = {"system": "s " * 100, "temperature": 1, "seed": 2, "logprobs": 1}
    cold, warm = (
        answer(load(model, chunk_size=100, cache_dtype="q8"), "hello", **settings) for _ in range(2)
    )
    assert (cold.statistics.stored_tokens, warm.statistics.stored_tokens) == (0, 192)
    assert (warm.token_ids, warm.logprobs) == (cold.token_ids, cold.logprobs)
    assert {array.dtype for array in mx.load(str(entries(tmp_path)[0])).values()} == {mx.uint32, mx.float32}


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path):
    path.write_bytes(b"")


def garble(path):
    path.write_bytes(b"\xff" * 400)


def link(path):
    target = path.with_name("target")
    path.rename(target)
    path.symlink_to(target)


def other_arrays(path):
    mx.save_safetensors(
        str(path), {"ids": mx.array([1], mx.uint32)}, {"tokens": "1", "model": "m", "written_s": "0"}
    )


@pytest.mark.parametrize("damage", [cut, empty, garble, link, other_arrays])
def test_a_damaged_entry_is_a_note_and_a_miss(load, tmp_path, damage):
    first = answer(load(), PROMPTS[0])
    damage(entries(tmp_path)[0])
    model = load()
    result = answer(model, PROMPTS[0])
    assert result.token_ids == first.token_ids
    assert result.statistics.stored_tokens == 0
    assert any("computed instead" in notice for notice in model.prefixes.take_notices())


def test_a_changed_number_is_found_by_verify(load, tmp_path):
    answer(load(), PROMPTS[0])
    [path] = entries(tmp_path)
    Entry(path).verify()
    content = bytearray(path.read_bytes())
    content[-300] ^= 1
    path.write_bytes(content)
    with pytest.raises(EntryError, match="has changed"):
        Entry(path).verify()


def test_files_are_the_users_alone(load, tmp_path):
    os.umask(0o022)
    answer(load(), PROMPTS[0])
    for path in [tmp_path / "prefixes", *(tmp_path / "prefixes").rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def test_the_oldest_go_first(load, tmp_path):
    size = 0
    for number in range(3):
        answer(
            load(prefix_cache_max_bytes=2 * size + size // 2 or 2**30),
            PROMPTS[0],
            system=f"{number} {SYSTEM}",
        )
        size = entries(tmp_path)[0].stat().st_size
        os.utime(entries(tmp_path)[0], (number, number))
    left = [Entry(path).ids() for path in entries(tmp_path)]
    assert len(left) == 2


def test_an_almost_full_disk_is_left_alone(load, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "DISK_FLOOR_BYTES", 2**62)
    model = load()
    answer(model, PROMPTS[0])
    assert entries(tmp_path) == []
    assert "disk" in model.prefixes.take_notices()[0]


def test_a_folder_that_cannot_be_used_is_one_notice(load, tmp_path):
    """A job whose cache is not there does its work without."""
    (tmp_path / "file").write_text("")
    model = load(prefix_cache_dir=str(tmp_path / "file"))
    for _ in range(2):
        assert answer(model, PROMPTS[0]).token_ids == answer(load(), PROMPTS[0]).token_ids
    [notice] = model.prefixes.take_notices()
    assert "cannot use the prefix cache" in notice
    assert model.prefixes.take_notices() == []


def test_a_prefix_file_comes_first(load, tmp_path):
    file = tmp_path / "prefix.txt"
    file.write_text("These are the rules of the story. " * 12)
    first = answer(load(prefix_file=str(file)), "Begin.", system=None)
    again = answer(load(prefix_file=str(file)), "Go on.", system=None)
    assert again.statistics.stored_tokens >= 64
    whole = answer(metal_gen.load(chunk_size=64), file.read_text() + "Begin.", system=None)
    assert whole.token_ids == first.token_ids
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        answer(load(prefix_file=str(file)), "Go on.")
    with pytest.raises(UsageError, match="cannot read the prefix file"):
        answer(load(prefix_file=str(tmp_path / "none")), "Go on.")


def test_messages_of_a_prefix_file_come_first(load, tmp_path):
    file = tmp_path / "prefix.json"
    file.write_text('[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]')
    result = answer(load(prefix_file=str(file)), "Begin.", system=None)
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]
    whole = answer(metal_gen.load(), [*messages, {"role": "user", "content": "Begin."}], system=None)
    assert result.statistics.prompt_tokens == whole.statistics.prompt_tokens


def test_it_takes_no_more_memory_than_planned(load, tmp_path):
    sizes = {"max_position_embeddings": 2048, "num_hidden_layers": 8, "head_dim": 64}
    model = str(write_text_checkpoint(tmp_path / "model", **sizes))
    settings = {"max_seq_len": 1024, "chunk_size": 64}
    for _ in range(2):
        before = begin_peak()
        loaded = load(model, **settings)
        planned = loaded.plan.total_bytes
        answer(loaded, "hello", system="s" * 900, max_tokens=4)
        assert peak_since(before) < 1.05 * planned
        del loaded
