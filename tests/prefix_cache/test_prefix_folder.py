"""The folder of stored prefixes: only what the cache wrote is touched, and what is damaged is replaced."""

import json
import os
import random
import stat
from contextlib import suppress

import pytest
from stored_prefixes import answer, entries, load_with_cache

from metal_gen.config.settings import Settings
from metal_gen.errors import ConfigError
from metal_gen.prefix_cache.entry import Entry, EntryError
from metal_gen.prefix_cache.folder import PrefixFolder, folder_of
from metal_gen.prefix_cache.seen import SeenBlocks

PROMPT = "Tell me about a fox."
KEY, HASH = "0" * 32, "1" * 32


@pytest.fixture
def folder(tmp_path):
    return PrefixFolder(tmp_path / "prefixes", 1000)


def put(folder, name, size=100, used_s=None, key=KEY):
    path = folder.path / key / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    if used_s is not None:
        os.utime(path, (used_s, used_s))
    return path


def test_files_of_others_are_neither_listed_nor_removed(folder):
    """The folder may be one that has other things in it, such as a folder of models."""
    others = [
        put(folder, "model.safetensors", key="my-model"),
        put(folder, f"{HASH}.safetensors", key="my-model"),
        put(folder, "model.safetensors", size=5000),
        put(folder, "notes.txt", key="."),
    ]
    own = put(folder, f"{HASH}.safetensors")
    assert [entry.path for entry in folder.entries()] == [own]
    folder.shrink()
    assert own.exists()
    folder.remove(folder.entries())
    assert not own.exists()
    assert all(path.exists() for path in others)
    folder.remove_notes()
    assert [path.exists() for path in others] == [True, True, False, True]


def test_a_folder_that_was_there_keeps_its_mode(folder):
    folder.path.mkdir(mode=0o755)
    inner = folder.prepare(KEY)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o755
    assert stat.S_IMODE(inner.stat().st_mode) == 0o700


def test_a_link_of_the_user_leads_to_another_disk(folder, tmp_path):
    (tmp_path / "disk").mkdir()
    folder.path.symlink_to(tmp_path / "disk")
    assert folder.prepare(KEY).is_dir()
    (tmp_path / "elsewhere").mkdir()
    (folder.path / HASH).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="not a folder of yours"):
        folder.prepare(HASH)


def test_a_folder_that_others_may_write_to_is_not_used(folder):
    folder.path.mkdir()
    folder.path.chmod(0o777)
    with pytest.raises(ConfigError, match="others may write"):
        folder.prepare(KEY)


def test_without_a_home_there_is_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert folder_of(Settings()).path == tmp_path / "metal-gen" / "prefixes"
    with pytest.raises(ConfigError, match="no home"):
        folder_of(Settings(prefix_cache_dir="~nobody-of-this-name/prefixes"))


def test_names_of_removed_entries_go_too(folder):
    path = put(folder, f"{HASH}.safetensors")
    alias = put(folder, f"{KEY}.in")
    alias.write_text(path.name)
    folder.remove(folder.entries())
    assert not alias.exists()


def test_the_newest_entry_is_not_removed_for_its_own_sake(folder):
    """Removing ends at nine tenths of the limit, so an entry between the two would go at once."""
    with pytest.raises(ConfigError, match="too small"):
        folder.require_room(950)
    old, new = put(folder, f"{HASH}.safetensors", 600, 1), put(folder, f"{KEY}.safetensors", 800, 2)
    folder.shrink()
    assert (old.exists(), new.exists()) == (False, True)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A stored prefix and the folder that it is in."""
    folder = tmp_path_factory.mktemp("stored")
    answer(load_with_cache(folder), PROMPT)
    [path] = entries(folder)
    return folder, path, path.read_bytes()


def test_an_entry_that_has_changed_is_a_miss_and_is_written_again(stored):
    folder, path, content = stored
    changed = bytearray(content)
    changed[len(content) // 2] ^= 0x40
    path.write_bytes(changed)
    expected = answer(load_with_cache(folder, prefix_cache=False), PROMPT)
    model = load_with_cache(folder)
    result = answer(model, PROMPT)
    assert result.statistics.stored_tokens == 0
    assert result.token_ids == expected.token_ids
    [notice] = model.prefixes.take_notices()
    assert "has changed" in notice
    Entry(path).verify()
    assert answer(load_with_cache(folder), PROMPT).statistics.stored_tokens > 0


def test_no_header_is_a_traceback(stored, tmp_path):
    """A header of any bytes gives an entry or an error with a sentence."""
    _, path, content = stored
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    chance = random.Random(3)
    values = [None, [], {}, "", "x", "-1", "1e999", "nan", -1, 2**70, True, [1, 2], {"a": "b"}, "9" * 5000]
    target = tmp_path / path.name
    for _ in range(400):
        changed = json.loads(json.dumps(header))
        name = chance.choice(sorted(changed))
        if chance.random() < 0.2:
            changed[name] = chance.choice(values)
        else:
            changed[name][chance.choice(sorted(changed[name]))] = chance.choice(values)
        encoded = bytearray(json.dumps(changed).encode())
        if chance.random() < 0.3:
            encoded[chance.randrange(len(encoded))] = chance.randrange(256)
        target.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[8 + size :])
        with suppress(EntryError):
            entry = Entry(target)
            entry.ids()
            entry.verify()


def test_any_file_of_seen_blocks_can_be_read(tmp_path):
    chance = random.Random(4)
    for size in (0, 1, 15, 16, 17, 1000):
        (tmp_path / "seen").write_bytes(chance.randbytes(size))
        seen = SeenBlocks(tmp_path)
        assert seen.blocks_in_common([b"a" * 16]) == 0
        seen.add([b"a" * 16])
        seen.save()
        assert SeenBlocks(tmp_path).blocks_in_common([b"a" * 16, b"b" * 16]) == 1
        (tmp_path / "seen").unlink()
