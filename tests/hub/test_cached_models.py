"""Tests the list of cached models: everything that takes space is listed, damaged or not."""

import os
import time

import pytest
from huggingface_hub import constants
from model_cache import ESC, A, B, model_files, put_model

from metal_gen.errors import ConfigError
from metal_gen.hub import deletion as hub_deletion
from metal_gen.hub.cache import cached_references, cached_snapshot, free_bytes
from metal_gen.hub.cached_models import cache_contents
from metal_gen.hub.deletion import delete_from_cache
from metal_gen.hub.reference import HubModel


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def states():
    return {model.reference: model.state for model in cache_contents().models}


def test_a_cache_that_is_not_there_holds_nothing(hub):
    hub.rmdir()
    assert cache_contents().models == ()
    assert cached_references() == []


def test_a_model_is_described(hub):
    snapshot = put_model(hub, "org/name", model_files(), names=("main", "refs/pr/1"))
    used_s = time.time() - 90_000
    os.utime(snapshot / "model.safetensors", (used_s, used_s))
    (model,) = cache_contents().models
    assert (model.reference, model.commit, model.names) == ("org/name", A, ("main", "refs/pr/1"))
    assert model.folder == snapshot
    assert model.size_bytes == sum(path.stat().st_size for path in snapshot.iterdir())
    assert model.used_s == pytest.approx(used_s, abs=1)
    assert (model.summary.model_type, model.summary.dtype) == ("qwen3", "bfloat16")
    assert (model.state, model.missing, model.problem) == ("ready", (), None)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quantization": {"group_size": 64, "bits": 4}}, "4-bit"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "gptq 8-bit"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, "awq 4-bit"),
        ({"quantization_config": {"quant_method": "fp8"}}, "fp8"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
        ({"quantization": 4}, "quantized"),
        ({"quantization": None}, None),
        ({"dtype": 7, "torch_dtype": None, "model_type": []}, None),
    ],
)
def test_the_quantization_of_weights_is_shown(hub, config, said):
    put_model(hub, "org/name", model_files(**config))
    (model,) = cache_contents().models
    assert model.summary.quantization == said
    assert model.state == "ready"


def test_every_commit_is_a_line_and_files_that_they_share_count_once(hub):
    put_model(hub, "org/name", model_files(), commit=A, names=("v1",))
    put_model(hub, "org/name", model_files(), commit=B)
    put_model(hub, "org/other", model_files(), commit=A, names=())
    shared = hub / "models--org--name" / "snapshots" / A / "model.safetensors"
    shared.unlink()
    shared.symlink_to("../../blobs/b-model.safetensors")
    assert list(states()) == ["org/name", "org/name@v1", f"org/other@{A}"]
    assert sorted(cached_references()) == list(states())
    one = cache_contents().models[0].size_bytes
    assert cache_contents().size_bytes == 3 * one - 3000


def test_what_is_damaged_is_listed_too(hub):
    put_model(hub, "org/gone", {**model_files(), "model.safetensors": None})
    put_model(hub, "org/broken", {**model_files(), "config.json": b"{"})
    put_model(hub, f"org/{ESC}", {})
    (hub / "models--org--parts" / "blobs").mkdir(parents=True)
    (hub / "models--org--parts" / "blobs" / "x.incomplete").write_bytes(b"12345")
    (hub / "models--org--empty").mkdir()
    (hub / "models--org--file").write_text("no folder")
    (hub / "datasets--org--name").mkdir()
    (hub / ".locks").mkdir()
    assert states() == {
        "org/gone": "incomplete",
        "org/broken": "unreadable",
        f"org/{ESC}": "incomplete",
        "org/parts": "incomplete",
        "org/empty": "incomplete",
    }
    by_name = {model.reference: model for model in cache_contents().models}
    assert by_name["org/gone"].missing == ("model*.safetensors",)
    assert "not JSON" in by_name["org/broken"].problem
    assert by_name["org/parts"].size_bytes == 5


def test_a_model_that_makes_no_sense_hides_no_other(hub):
    put_model(hub, "org/good", model_files())
    index = "model.safetensors.index.json"
    for name, file, content in [
        ("nested", "config.json", b"[" * 200_000),
        ("index", index, b"[" * 200_000),
        ("map", index, b'{"weight_map": {"a": ["x"]}}'),
        ("outside", index, b'{"weight_map": {"a": "/etc/passwd"}}'),
        ("huge", "config.json", b'{"model_type": ' + b"9" * 5000 + b"}"),
    ]:
        put_model(hub, f"org/{name}", {**model_files(), "model.safetensors": None, file: content})
    zero = put_model(hub, "org/zero", model_files()) / "config.json"
    zero.unlink()
    zero.symlink_to("/dev/zero")
    loop = put_model(hub, "org/loop", model_files()) / "loop"
    loop.symlink_to(loop)
    late = put_model(hub, "org/late", model_files()) / "model.safetensors"
    os.utime(late, (2**34 - 1, 0))
    for note in (b"../../..", b"\xff", b"a\0b", b"x" * 10_000):
        (hub / "models--org--good" / "refs" / str(len(note))).write_bytes(note)

    found = states()

    assert found.pop("org/good") == "ready"
    assert found.pop("org/late") == "ready"
    assert found.pop("org/zero") == "incomplete"
    assert set(found.values()) == {"unreadable"}
    assert len(found) == 6
    assert all(len(model.problem or "") < 500 for model in cache_contents().models)


def test_a_model_that_cannot_be_read_can_be_deleted(hub):
    loop = put_model(hub, "org/name", model_files()) / "loop"
    loop.symlink_to(loop)
    (hub / "models--org--name" / "refs" / "main").write_bytes(b"\xff")
    put_model(hub, "org/other", model_files())
    delete("org/name")
    assert states() == {"org/other": "ready"}


@pytest.mark.parametrize("note", [b"../../..", b"/etc", b"\xff", b"a\0b", b"x" * 300, b""])
def test_a_note_of_a_commit_leads_nowhere_else(hub, note):
    put_model(hub, "org/name", model_files())
    (hub / "models--org--name" / "refs" / "main").write_bytes(note)
    assert cached_snapshot(HubModel("org/name")) is None


def test_a_cache_whose_name_no_folder_can_have(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/" + "x" * 5000)
    for look in (cache_contents, free_bytes, lambda: cached_snapshot(HubModel("org/name"))):
        with pytest.raises(ConfigError, match=r"the cache cannot be read: /x.*: File name too long"):
            look()


def test_a_commit_is_found_by_its_names(hub):
    put_model(hub, "org/name", model_files(), commit=A, names=("v1",))
    put_model(hub, "org/name", model_files(), commit=B)
    found = {
        asked: [model.commit for model in cache_contents().matching(asked)]
        for asked in ("org/name", "org/name@v1", f"org/name@{B}", "org/name@v2", "org/nam")
    }
    assert found == {
        "org/name": [B, A],
        "org/name@v1": [A],
        f"org/name@{B}": [B],
        "org/name@v2": [],
        "org/nam": [],
    }


def delete(asked):
    delete_from_cache(cache_contents().matching(asked))


def test_a_commit_is_deleted_and_what_others_need_is_kept(hub):
    put_model(hub, "org/name", model_files(), commit=A, names=("v1",))
    put_model(hub, "org/name", model_files(), commit=B)
    put_model(hub, "copy/name", model_files(), commit=A)
    before = cache_contents().size_bytes
    delete("org/name@v1")
    assert list(states()) == ["copy/name", "org/name"]
    assert set(states().values()) == {"ready"}
    assert cache_contents().size_bytes == pytest.approx(before * 2 / 3)


@pytest.mark.parametrize("damage", ["nothing", "a blob is gone", "a ref to nowhere", "parts", "no snapshots"])
def test_a_whole_model_is_deleted_whatever_its_state(hub, damage):
    put_model(hub, "org/other", model_files())
    repository = hub / "models--org--name"
    if damage == "no snapshots":
        repository.mkdir()
        (repository / "snapshots").write_text("x")
    elif damage == "parts":
        (repository / "blobs").mkdir(parents=True)
        (repository / "blobs" / "x.incomplete").write_bytes(b"12345")
    else:
        tokenizer = None if damage == "a blob is gone" else b"{}"
        put_model(hub, "org/name", {**model_files(), "tokenizer.json": tokenizer})
        if damage == "a ref to nowhere":
            (repository / "refs" / "v1").write_text(B)
    delete("org/name")
    assert not repository.exists()
    assert states() == {"org/other": "ready"}


def test_an_unreadable_other_model_does_not_matter(hub, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    put_model(hub, "org/name", model_files(), commit=A, names=("v1",))
    put_model(hub, "org/name", model_files(), commit=B)
    monkeypatch.setattr(hub_deletion, "scan_cache_dir", refuse)
    with pytest.raises(ConfigError):
        delete("org/name@v1")
    delete("org/name")
    assert states() == {}


def test_a_cache_that_may_not_be_written_to_loses_nothing(hub, monkeypatch):
    put_model(hub, "org/name", model_files())
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="cannot be written to"):
        delete("org/name")
    assert states() == {"org/name": "ready"}


def test_a_commit_of_a_damaged_model_is_not_deleted_alone(hub):
    put_model(hub, "org/name", {**model_files(), "tokenizer.json": None}, commit=A, names=("v1",))
    put_model(hub, "org/name", model_files(), commit=B)
    with pytest.raises(ConfigError, match="damaged: org/name@v1") as caught:
        delete("org/name@v1")
    assert "metal-gen models rm org/name`" in caught.value.hint
    assert len(states()) == 2
